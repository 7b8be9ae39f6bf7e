/** One signing key of the ring. The private half rests encrypted under the root key (state/encryption.ts). */
export interface RingKey {
  kid: string;
  alg: 'ES256' | 'RS256';
  /** prepare: published, not yet used; active: signs; retiring: verifies until its last token ends; tainted: refused at once. */
  state: 'prepare' | 'active' | 'retiring' | 'tainted';
  createdAtMs: number;
  activatedAtMs?: number;
  retiredAtMs?: number;
  publicJwk: PublicJwk;
  /** PKCS#8 PEM; absent once tainted. */
  privateKey?: string;
}

export interface PublicJwk {
  kty: string;
  kid: string;
  alg: string;
  use: 'sig';
  [member: string]: string;
}

/** Makes keys and signs with them. */
export interface Signer {
  makeKey(alg: RingKey['alg'], nowMs: number): Promise<RingKey>;
  /** The compact JWS of a payload: header exactly {alg, typ, kid}. Synchronous: it is on the mint path. */
  sign(key: RingKey, typ: string, payload: object): string;
}
