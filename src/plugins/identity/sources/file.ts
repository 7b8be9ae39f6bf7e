import { readFile, stat } from 'node:fs/promises';
import { z } from 'zod';
import { type BundleContent, readJwks, readSpiffeBundle, readSpiffeBundleMap } from '../bundle-document.js';
import { polledSource } from './polled.js';
import type { BundleSource, SourceDeps } from './source.js';

/** Files are cheap to look at, and somebody who edits one is waiting. */
const INTERVAL_MS = 2_000;
const BYTES_MAX = 1024 * 1024;

export const fileSource = {
  kind: 'file' as const,
  config: z.strictObject({
    kind: z.literal('file').describe('A SPIFFE bundle, or a bundle map, in a file.'),
    path: z.string().min(1).describe('JSON file; read again every 2 s.'),
  }),
  create({ path }: { path: string }, trustDomain: string, { setTimer }: SourceDeps): BundleSource {
    return polledSource({
      description: `file ${path}`,
      look: async () => readBundleFile(await readText(path), trustDomain),
      setTimer,
      intervalMs: INTERVAL_MS,
      intervalMsMax: INTERVAL_MS,
    });
  },
};

/** An OIDC issuer's JWK Set in a file. */
export function jwksFileSource(path: string, { setTimer }: SourceDeps): BundleSource {
  return polledSource({
    description: `jwks_file ${path}`,
    look: async () => readJwks(await readText(path), ['sig']),
    setTimer,
    intervalMs: INTERVAL_MS,
  });
}

function readBundleFile(text: string, trustDomain: string): BundleContent {
  return /"trust_domains"\s*:/.test(text) ? readSpiffeBundleMap(text, trustDomain) : readSpiffeBundle(text);
}

async function readText(path: string): Promise<string> {
  const { size } = await stat(path);
  if (size > BYTES_MAX) throw new Error('the file is too large');
  return readFile(path, 'utf8');
}
