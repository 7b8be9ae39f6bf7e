declare const checked: unique symbol;

/** A string that is a SPIFFE ID with a path. Only `parseSpiffeId` makes one, so no other value can hold it. */
export type SpiffeId = string & { readonly [checked]: 'spiffe-id' };

/** A trust domain's name, such as `prod.example`. */
export type TrustDomain = string & { readonly [checked]: 'trust-domain' };

const ID_BYTES_MAX = 2048;
const TRUST_DOMAIN_BYTES_MAX = 255;
const TRUST_DOMAIN = /^[a-z0-9._-]{1,255}$/;
const SPIFFE_ID = /^spiffe:\/\/([a-z0-9._-]{1,255})((?:\/[A-Za-z0-9._-]+)*)$/;

/**
 * The strict reading of SPIFFE-ID.md section 2 (SPF-ID-1 to SPF-ID-5): lower case, no percent-encoding, no
 * empty, `.` or `..` segment, no trailing slash, at most 2048 bytes. Nothing is normalised, there is one
 * spelling. An ID of a workload has a path; a bare trust domain is undefined here.
 */
export function parseSpiffeId(text: unknown): SpiffeId | undefined {
  if (typeof text !== 'string' || text.length > ID_BYTES_MAX) return undefined;
  const match = SPIFFE_ID.exec(text);
  const path = match?.[2];
  if (!path) return undefined;
  if (path.split('/').some((segment) => segment === '.' || segment === '..')) return undefined;
  return text as SpiffeId;
}

export function parseTrustDomain(text: unknown): TrustDomain | undefined {
  return typeof text === 'string' && text.length <= TRUST_DOMAIN_BYTES_MAX && TRUST_DOMAIN.test(text)
    ? (text as TrustDomain)
    : undefined;
}

export function trustDomainOf(id: SpiffeId): TrustDomain {
  return id.slice('spiffe://'.length, id.indexOf('/', 'spiffe://'.length)) as TrustDomain;
}

/** `/agent/refunds` of `spiffe://dev.mayfly/agent/refunds`. */
export function pathOf(id: SpiffeId): string {
  return id.slice(id.indexOf('/', 'spiffe://'.length));
}

/** True when `id` is `prefix` itself or lies below it, by whole segments: `…/agent` holds `…/agent/a`, not `…/agents`. */
export function hasPrefix(id: string, prefix: string): boolean {
  return id === prefix || id.startsWith(`${prefix}/`);
}

/** Every prefix of an ID, shortest first, the trust domain excluded and the ID itself included. */
export function prefixesOf(id: SpiffeId): string[] {
  const root = `spiffe://${trustDomainOf(id)}`;
  const prefixes: string[] = [];
  let at = root.length;
  while (at !== -1) {
    at = id.indexOf('/', at + 1);
    prefixes.push(at === -1 ? id : id.slice(0, at));
  }
  return prefixes;
}
