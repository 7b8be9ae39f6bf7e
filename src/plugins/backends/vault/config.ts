import { z } from 'zod';
import { boundsConfig } from '../bounds.js';
import { authConfig } from './login.js';

const file = z.string().min(1).max(4096);

/** The configuration of a backend of kind `vault`. */
export const vaultConfig = z
  .strictObject({
    kind: z.literal('vault').describe('HashiCorp Vault or OpenBao.'),
    address: z
      .string()
      .refine(isAddress, 'has to be an https address (http on a loopback address only) without path or trailing slash')
      .describe(
        'Its address. Redirects are never followed: name an active node, or what stands in front of the nodes.',
      ),
    namespace: z
      .string()
      .regex(/^[A-Za-z0-9_-]+(\/[A-Za-z0-9_-]+)*$/, 'has to be a namespace such as team-a or org/team-a')
      .optional()
      .describe('All that this backend asks for is in it.'),
    auth: authConfig.describe('How the broker logs in.'),
    token_role: z
      .string()
      .regex(/^[A-Za-z0-9_-]{1,128}$/)
      .default('mayfly')
      .describe('The token role that makes the token of each lease; a secret may name its own.'),
    ca_file: file.optional().describe('PEM file with the only authorities for this TLS connection.'),
    cert_file: file.optional().describe('Client certificate (PEM), read for each new connection.'),
    key_file: file.optional().describe('Its key.'),
    connections_max: z.int().min(1).max(1000).default(64).describe('Connections, so calls, at a time.'),
    ...boundsConfig({ issuesMax: 32, revocationsMax: 32 }),
  })
  .refine((one) => (one.cert_file === undefined) === (one.key_file === undefined), {
    error: 'needs both of cert_file and key_file, or neither',
    path: ['key_file'],
  });

const LOOPBACK = new Set(['127.0.0.1', 'localhost', '[::1]']);

function isAddress(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const url = new URL(text);
  return url.origin === text && (url.protocol === 'https:' || (url.protocol === 'http:' && LOOPBACK.has(url.hostname)));
}
