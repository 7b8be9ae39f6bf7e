import { createHash, generateKeyPairSync, type KeyObject, randomUUID, sign } from 'node:crypto';

/** Makes DPoP proofs (RFC 9449) with an ES256 key that never leaves this process and lives as long as it. */
export class DpopProver {
  readonly #privateKey: KeyObject;
  readonly #jwk: { kty: string; crv: string; x: string; y: string };
  /** The nonce each server asked for last, by origin. */
  readonly #nonces = new Map<string, string>();

  constructor() {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const { kty, crv, x, y } = publicKey.export({ format: 'jwk' }) as Record<'kty' | 'crv' | 'x' | 'y', string>;
    this.#privateKey = privateKey;
    this.#jwk = { kty, crv, x, y };
  }

  /** RFC 7638 thumbprint, as in a bound token's `cnf.jkt`. */
  get thumbprint(): string {
    const { crv, kty, x, y } = this.#jwk;
    return createHash('sha256').update(JSON.stringify({ crv, kty, x, y })).digest('base64url');
  }

  /** One proof for one request. `accessToken` when it goes along with a bound token. */
  prove(request: { method: string; url: string; nowMs: number; accessToken?: string }): string {
    const { origin, pathname } = new URL(request.url);
    const nonce = this.#nonces.get(origin);
    const claims = {
      jti: randomUUID(),
      htm: request.method,
      htu: `${origin}${pathname}`,
      iat: Math.floor(request.nowMs / 1_000),
      ...(request.accessToken === undefined
        ? {}
        : { ath: createHash('sha256').update(request.accessToken).digest('base64url') }),
      ...(nonce === undefined ? {} : { nonce }),
    };
    const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const input = `${encode({ typ: 'dpop+jwt', alg: 'ES256', jwk: this.#jwk })}.${encode(claims)}`;
    const signature = sign('sha256', Buffer.from(input), { key: this.#privateKey, dsaEncoding: 'ieee-p1363' });
    return `${input}.${signature.toString('base64url')}`;
  }

  /** Keeps the nonce that a server sent with its answer, for the next proof to it. */
  noteNonce(url: string, nonce: string | null): void {
    if (nonce !== null && nonce !== '' && nonce.length <= 512) this.#nonces.set(new URL(url).origin, nonce);
  }
}
