import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { Secret } from '../../../core/secret.js';
import { type BackendDeps, BackendProblem } from '../contract.js';
import type { VaultClient } from './client.js';
import { isVaultPath, PATH_RULE, vaultPath } from './path.js';

const file = z.string().min(1).max(4096);
const mount = (byDefault: string) =>
  z.string().refine(isVaultPath, PATH_RULE).default(byDefault).describe('Path of the auth method, without `auth/`.');
const role = z.string().min(1).max(256).describe('The role of the auth method to log in with.');

/** How the broker proves to a Vault who it is. */
export const authConfig = z.discriminatedUnion('method', [
  z
    .strictObject({
      method: z.literal('jwt').describe('A JWT: an SVID from a file, or one that this broker signs with its own key.'),
      mount: mount('jwt'),
      role,
      token_file: file
        .optional()
        .describe('File with the JWT (a JWT-SVID kept fresh by a helper), read at every login.'),
      audience: z
        .string()
        .min(1)
        .max(512)
        .optional()
        .describe('Instead of token_file: the audience of a JWT signed by this broker for a minute.'),
      subject: z.string().min(1).max(256).default('mayfly').describe('Its `sub`.'),
    })
    .refine((auth) => (auth.token_file === undefined) !== (auth.audience === undefined), {
      error: 'needs exactly one of token_file and audience',
    }),
  z.strictObject({
    method: z.literal('approle'),
    mount: mount('approle'),
    role_id: z.string().min(1).max(256),
    secret_id_file: file.describe('File with the secret id, read at every login.'),
  }),
  z.strictObject({
    method: z.literal('kubernetes'),
    mount: mount('kubernetes'),
    role,
    token_file: file
      .default('/var/run/secrets/kubernetes.io/serviceaccount/token')
      .describe('The service account’s token, read at every login.'),
  }),
  z.strictObject({
    method: z.literal('token').describe('A token that somebody else looks after (a Vault agent, a developer).'),
    token_file: file.describe('File with the token, read at every login.'),
  }),
]);

export type AuthConfig = z.output<typeof authConfig>;

/** A token of the broker's own. `ttlMs` 0: it does not end. */
export interface BrokerToken {
  token: Secret<string>;
  ttlMs: number;
  renewable: boolean;
}

const loginReply = z.object({
  auth: z.object({
    client_token: z.string().min(1),
    lease_duration: z.int().min(0),
    renewable: z.boolean(),
  }),
});

const lookupReply = z.object({ data: z.object({ ttl: z.int().min(0), renewable: z.boolean().optional() }) });

export async function logIn(
  client: VaultClient,
  auth: AuthConfig,
  deps: Pick<BackendDeps, 'assertion'>,
  signal: AbortSignal,
): Promise<BrokerToken> {
  if (auth.method === 'token') {
    const token = new Secret(await readSecret(auth.token_file));
    const path = vaultPath('auth/token/lookup-self');
    const { data } = await client.call({
      method: 'GET',
      path,
      token,
      reply: lookupReply,
      signal,
      doing: 'look at the token of token_file',
    });
    return { token, ttlMs: data.ttl * 1000, renewable: data.renewable === true };
  }
  const { auth: given } = await client.call({
    method: 'POST',
    path: vaultPath('auth', auth.mount, 'login'),
    body: await credentials(auth, deps),
    reply: loginReply,
    signal,
    doing: `log in by ${auth.method}`,
  });
  const ttlMs = given.lease_duration * 1000;
  return { token: new Secret(given.client_token), ttlMs, renewable: given.renewable };
}

async function credentials(
  auth: Exclude<AuthConfig, { method: 'token' }>,
  deps: Pick<BackendDeps, 'assertion'>,
): Promise<Record<string, string>> {
  if (auth.method === 'approle') return { role_id: auth.role_id, secret_id: await readSecret(auth.secret_id_file) };
  if (auth.method === 'jwt' && auth.audience !== undefined) {
    const jwt = await deps.assertion({ subject: auth.subject, audience: auth.audience, ttlMs: 60_000 });
    return { role: auth.role, jwt: jwt.expose() };
  }
  return { role: auth.role, jwt: await readSecret(auth.token_file as string) };
}

const SECRET_CHARS_MAX = 16_384;

async function readSecret(path: string): Promise<string> {
  let text: string;
  try {
    text = (await readFile(path, 'utf8')).trim();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unreadable';
    throw new BackendProblem('misconfigured', `the file to log in with cannot be read (${code})`, { isSure: true });
  }
  if (text === '' || text.length > SECRET_CHARS_MAX) {
    throw new BackendProblem('misconfigured', 'the file to log in with is empty or too large', { isSure: true });
  }
  return text;
}
