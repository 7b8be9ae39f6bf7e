import { z } from 'zod';
import { JsonRefused, parseStrictObject } from '../../../core/strict-json.js';
import { readJwks, readSpiffeBundle } from '../bundle-document.js';
import { type FetchOptions, fetchDocument } from './fetch-document.js';
import { polledSource } from './polled.js';
import type { BundleSource, SourceDeps } from './source.js';

/** SPIFFE_Federation.md section 5.1.4, and a sane value for key sets. */
const INTERVAL_MS = 300_000;

export const httpsWebSource = {
  kind: 'https_web' as const,
  config: z.strictObject({
    kind: z.literal('https_web').describe('A bundle endpoint of profile https_web.'),
    url: z.url({ protocol: /^https$/ }).describe('The endpoint. The trust domain is never inferred from it.'),
    ca_file: z.string().min(1).optional().describe('PEM file with the only authorities for this TLS connection.'),
  }),
  create(
    config: { url: string; ca_file?: string | undefined },
    _trustDomain: string,
    { setTimer }: SourceDeps,
  ): BundleSource {
    return polledSource({
      description: `https_web ${config.url}`,
      look: async (signal) => readSpiffeBundle(await fetchDocument(config.url, fetchOptions(config, signal))),
      setTimer,
      intervalMs: INTERVAL_MS,
    });
  },
};

export function jwksUriSource(
  config: { jwks_uri: string; ca_file?: string | undefined; token_file?: string | undefined },
  { setTimer }: SourceDeps,
): BundleSource {
  return polledSource({
    description: `jwks_uri ${config.jwks_uri}`,
    look: async (signal) => readJwks(await fetchDocument(config.jwks_uri, fetchOptions(config, signal)), ['sig']),
    setTimer,
    intervalMs: INTERVAL_MS,
  });
}

/** OpenID Connect Discovery 1.0, for an issuer that somebody registered: the document has to name exactly that issuer. */
export function discoverySource(
  issuer: string,
  config: { ca_file?: string | undefined },
  { setTimer }: SourceDeps,
): BundleSource {
  const address = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
  return polledSource({
    description: `discovery ${issuer}`,
    look: async (signal) => {
      const metadata = readMetadata(await fetchDocument(address, fetchOptions(config, signal)));
      if (metadata['issuer'] !== issuer) throw new Error('the metadata is another issuer’s');
      if (typeof metadata['jwks_uri'] !== 'string') throw new Error('the metadata has no jwks_uri');
      return readJwks(await fetchDocument(metadata['jwks_uri'], fetchOptions(config, signal)), ['sig']);
    },
    setTimer,
    intervalMs: INTERVAL_MS,
  });
}

function readMetadata(text: string): Record<string, unknown> {
  try {
    return parseStrictObject(text);
  } catch (error) {
    if (error instanceof JsonRefused) throw new Error(`the metadata: ${error.message}`);
    throw error;
  }
}

function fetchOptions(
  config: { ca_file?: string | undefined; token_file?: string | undefined },
  signal: AbortSignal,
): FetchOptions {
  return {
    signal,
    ...(config.ca_file === undefined ? {} : { caFile: config.ca_file }),
    ...(config.token_file === undefined ? {} : { tokenFile: config.token_file }),
  };
}
