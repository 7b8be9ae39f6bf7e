import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Handle } from '../../core/credential.js';
import { Secret } from '../../core/secret.js';
import { definePlugin } from '../plugin.js';
import { boundsConfig, boundsOf } from './bounds.js';
import { type Backend, type BackendDeps, BackendProblem } from './contract.js';

/** A value and what encrypting adds to it. */
const FILE_BYTES_MAX = 64 * 1024;

/** It becomes a file's name and the place the value is encrypted for: no path, no hidden file. */
const VALUE_NAME = /^[a-z0-9][a-z0-9_-]{0,63}$/;
const VALUE_NAME_RULE = 'must be 1 to 64 lower-case letters, digits, "_" or "-", a letter or digit first';

const settingsShape = z.strictObject({
  value: z
    .string()
    .regex(VALUE_NAME, VALUE_NAME_RULE)
    .describe('Name the value was encrypted for (`mayfly secret encrypt --name`), and of its file in the folder.'),
  field: z
    .string()
    .regex(/^[a-z][a-z0-9_]{0,63}$/, 'must be lower-case letters, digits or "_"')
    .default('value')
    .describe('The field of `data` that holds it.'),
});

const configShape = z.strictObject({
  kind: z.literal('static').describe('Values that are dead only when somebody changes them.'),
  dir: z.string().min(1).max(4096).describe('Folder with one encrypted file for each value, read at every use.'),
  ...boundsConfig({ issuesMax: 64, revocationsMax: 64 }),
});

/**
 * A key that is not made anew for anybody: it rests in a file, encrypted under the root key, and is handed out as it is. Revoking takes nothing
 * back: it is dead once somebody has changed it at its provider, which is seen by another value in the file. Values are told apart by a
 * fingerprint that gets into the handle with the commit; so a lease without one never left the broker.
 */
export const staticBackend = definePlugin({
  kind: 'static' as const,
  config: configShape,
  create(config: z.output<typeof configShape>, deps: BackendDeps): Backend {
    const current = (name: string, signal: AbortSignal) => readValue(config.dir, name, deps, signal);

    return {
      name: deps.name,
      kind: 'static',
      bounds: boundsOf(config),
      secretSettings: settingsShape,

      revocability: () => ({ kind: 'rotate-only' }),

      plan: ({ settings }) => ({ value: settingsShape.parse(settings).value }),

      async issue({ settings, deadlineMs, expiresAtMs, signal }) {
        const { value: name, field } = settingsShape.parse(settings);
        const value = await current(name, signal);
        if (deps.clock.now() >= deadlineMs) {
          throw new BackendProblem('too_late', `the deadline of the intent for ${name} has passed`, { isSure: true });
        }
        return {
          data: new Secret({ [field]: value.expose() }),
          handle: { fingerprint: deps.fingerprint(name, value) },
          expiresAtMs,
          renewable: false,
          warnings: ['A standing value: it works until somebody changes it, whatever becomes of this lease.'],
        };
      },

      revoke: async () => {},

      async confirm({ handle }, signal) {
        if (handle['fingerprint'] === undefined) return { state: 'gone' };
        const name = nameIn(handle);
        const now = deps.fingerprint(name, await current(name, signal));
        return now === handle['fingerprint'] ? { state: 'unknowable' } : { state: 'gone' };
      },

      async check({ settings }, signal) {
        try {
          await current(settingsShape.parse(settings).value, signal);
          return [];
        } catch (error) {
          if (error instanceof BackendProblem && error.kind === 'misconfigured') return [error.message];
          throw error;
        }
      },

      close: async () => {},
    };
  },
});

/** What is wrong with the name of a value; undefined when nothing is. */
export function valueNameProblem(name: string): string | undefined {
  return VALUE_NAME.test(name) ? undefined : VALUE_NAME_RULE;
}

function nameIn(handle: Handle): string {
  const { value: name = '' } = handle;
  if (!VALUE_NAME.test(name)) throw new BackendProblem('failed', 'the lease names no value', { isSure: true });
  return name;
}

async function readValue(
  dir: string,
  name: string,
  { decrypt }: BackendDeps,
  signal: AbortSignal,
): Promise<Secret<string>> {
  const encrypted = await readEncrypted(join(dir, name), name, signal);
  let value: Secret<string>;
  try {
    value = decrypt(name, encrypted);
  } catch {
    throw misconfigured(name, `cannot be decrypted: it was encrypted under another root key, cell or name`);
  }
  if (value.expose() === '') throw misconfigured(name, 'is empty');
  return value;
}

async function readEncrypted(path: string, name: string, signal: AbortSignal): Promise<string> {
  try {
    signal.throwIfAborted();
    const found = await stat(path);
    if (!found.isFile() || found.size > FILE_BYTES_MAX) {
      throw misconfigured(name, `is no file of at most ${FILE_BYTES_MAX / 1024} KiB`);
    }
    return (await readFile(path, { encoding: 'utf8', signal })).trim();
  } catch (error) {
    if (error instanceof BackendProblem) throw error;
    if (signal.aborted) throw new BackendProblem('timeout', `the value ${name} was not read in time`, { isSure: true });
    const { code = 'an error' } = error as NodeJS.ErrnoException;
    throw misconfigured(name, `cannot be read (${code})`);
  }
}

function misconfigured(name: string, what: string): BackendProblem {
  return new BackendProblem(
    'misconfigured',
    `the value ${name} ${what}; make its file in the backend's folder anew: mayfly secret encrypt --name ${name}`,
    { isSure: true },
  );
}
