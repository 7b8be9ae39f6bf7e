import { closeSync, fstatSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { SecretData } from '../../core/credential.js';
import { LeftBehind } from './left-behind.js';
import { UsageError } from './output.js';

/** Where one secret, or one field of it, is put for a command: environment variables, or a file that is removed when the command is done. */
export interface Target {
  secret: string;
  field?: string;
  to: { kind: 'env'; name: string } | { kind: 'file'; path: string };
}

const SECRET = /^([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*?)$/;
const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*$/;
/** What the command line and the dynamic linker read: handing a secret over must not become a way to run something else. */
const RESERVED =
  /^(PATH|IFS|ENV|BASH_ENV|SHELLOPTS|PROMPT_COMMAND|PS4|NODE_(OPTIONS|PATH)|PYTHON(STARTUP|PATH|HOME)|PERL5?(OPT|LIB|DB)|RUBY(OPT|LIB)|GIT_.*|LD_.*|DYLD_.*|MAYFLY_.*)$/;

/**
 * `orders-db=DB` sets DB_HOST, DB_PASSWORD… (or DB, when there is only one field); `orders-db:password=PGPASSWORD` sets one variable;
 * `orders-db=./db.json` writes all fields as JSON, `orders-db:password=./password` one value. A file is new, and readable by us only.
 */
export function readTarget(text: string): Target {
  const sign = text.indexOf('=');
  const [from, into] = [text.slice(0, sign), text.slice(sign + 1)];
  const [secret, field, ...more] = from.split(':');
  if (sign < 1 || into === '' || more.length > 0 || !SECRET.test(secret as string) || field === '') {
    throw new UsageError(`--secret: ${text} is not name=ENV, name=./file or name:field=ENV.`);
  }
  const whole = { secret: secret as string, ...(field !== undefined && { field }) };
  if (into.includes('/')) return { ...whole, to: { kind: 'file', path: into } };
  if (!VARIABLE.test(into)) {
    throw new UsageError(
      `--secret: ${into} is neither a variable's name nor a path (a path has a slash, such as ./${into}).`,
    );
  }
  if (RESERVED.test(into)) throw new UsageError(`--secret: ${into} has a meaning of its own; choose another variable.`);
  return { ...whole, to: { kind: 'env', name: into } };
}

/** Puts the values in their places. Returns the variables for the command; `clear` removes the files that were written. */
export class HandOver {
  readonly variables: Record<string, string> = {};
  readonly #files: { path: string; forget: () => void }[] = [];
  readonly #leftBehind: LeftBehind;

  constructor(leftBehind = new LeftBehind()) {
    this.#leftBehind = leftBehind;
  }

  put({ secret, field, to }: Target, data: SecretData): void {
    const chosen = field === undefined ? data : one(secret, field, data);
    if (to.kind === 'env') this.#set(to.name, chosen);
    else this.#write(to.path, typeof chosen === 'object' ? `${JSON.stringify(chosen, null, 2)}\n` : String(chosen));
  }

  /** Returns a line for each file that could not be removed; it stays noted. Throws nothing: the task has still to be ended. */
  clear(): string[] {
    return this.#files.splice(0).flatMap(({ path, forget }) => {
      try {
        rmSync(path, { force: true });
        forget();
        return [];
      } catch (error) {
        const { code, message } = error as NodeJS.ErrnoException;
        return [`${path}, which has a secret in it, cannot be removed (${code ?? message}); the next run tries again.`];
      }
    });
  }

  #set(name: string, chosen: SecretData | string | number): void {
    if (typeof chosen !== 'object') this.#variable(name, chosen);
    else {
      const fields = Object.entries(chosen);
      for (const [field, value] of fields) {
        this.#variable(fields.length === 1 ? name : `${name}_${field.replace(/\W/g, '_').toUpperCase()}`, value);
      }
    }
  }

  #variable(name: string, value: string | number): void {
    if (String(value).includes('\0'))
      throw new UsageError(`--secret: the value for ${name} cannot stand in a variable.`);
    this.variables[name] = String(value);
  }

  /** Never over something that is there, a link included. Noted before it holds anything: should we be killed, the next run removes it. */
  #write(target: string, text: string): void {
    const path = resolve(target);
    const failed = (error: unknown, what: string) => {
      const { code } = error as NodeJS.ErrnoException;
      return new UsageError(`--secret: ${target} ${code === 'EEXIST' ? 'is there already' : `${what} (${code})`}.`);
    };
    let file: number;
    try {
      file = openSync(path, 'wx', 0o600);
    } catch (error) {
      throw failed(error, 'cannot be written');
    }
    try {
      this.#files.push({ path, forget: this.#noted(target, path, file) });
      writeFileSync(file, text);
    } catch (error) {
      throw error instanceof UsageError ? error : failed(error, 'cannot be written');
    } finally {
      closeSync(file);
    }
  }

  #noted(target: string, path: string, file: number): () => void {
    try {
      return this.#leftBehind.note(path, fstatSync(file, { bigint: true }));
    } catch (error) {
      rmSync(path, { force: true });
      const { message } = error as Error;
      throw new UsageError(
        `--secret: ${target} cannot be noted to be removed again: ${message}. Set XDG_STATE_HOME to a folder that only you can write in.`,
      );
    }
  }
}

function one(secret: string, field: string, data: SecretData): string | number {
  const value = Object.hasOwn(data, field) ? data[field] : undefined;
  if (value === undefined) {
    throw new UsageError(`--secret: ${secret} has no ${field}; it has ${Object.keys(data).join(', ')}.`);
  }
  return value;
}
