import { createPrivateKey, generateKeyPair, type KeyObject, randomBytes, sign } from 'node:crypto';
import { promisify } from 'node:util';
import type { PublicJwk, RingKey, Signer } from './contract.js';

const generate = promisify(generateKeyPair);

/**
 * Keys made and used in this process; their private halves rest encrypted under the root key. ES256 by default; RS256 (2048 bits) for
 * relying parties that take nothing else.
 */
export function localSigner(): Signer {
  const loaded = new WeakMap<RingKey, KeyObject>();
  /** Encoded, by `typ`: there are a handful, and each stands in front of every token of its key. */
  const headers = new WeakMap<RingKey, Map<string, string>>();

  function privateKeyOf(key: RingKey): KeyObject {
    let made = loaded.get(key);
    if (!made) {
      if (!key.privateKey) throw new Error(`key ${key.kid} has no private half`);
      made = createPrivateKey(key.privateKey);
      loaded.set(key, made);
    }
    return made;
  }

  function headerOf(key: RingKey, typ: string): string {
    const ofKey = headers.get(key) ?? new Map<string, string>();
    let header = ofKey.get(typ);
    if (header === undefined) {
      header = Buffer.from(JSON.stringify({ typ, alg: key.alg, kid: key.kid })).toString('base64url');
      headers.set(key, ofKey.set(typ, header));
    }
    return header;
  }

  return {
    async makeKey(alg, nowMs) {
      const pair =
        alg === 'ES256'
          ? await generate('ec', { namedCurve: 'P-256' })
          : await generate('rsa', { modulusLength: 2048, publicExponent: 0x10001 });
      const kid = `${alg.toLowerCase()}-${randomBytes(9).toString('base64url')}`;
      const jwk = pair.publicKey.export({ format: 'jwk' }) as Record<string, string>;
      const publicJwk: PublicJwk = { ...jwk, kty: jwk['kty'] as string, kid, alg, use: 'sig' };
      const privateKey = pair.privateKey.export({ format: 'pem', type: 'pkcs8' }) as string;
      return { kid, alg, state: 'prepare', createdAtMs: nowMs, publicJwk, privateKey };
    },

    sign(key, typ, payload) {
      const input = `${headerOf(key, typ)}.${Buffer.from(JSON.stringify(payload)).toString('base64url')}`;
      const privateKey = privateKeyOf(key);
      const signature =
        key.alg === 'ES256'
          ? sign('sha256', Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' })
          : sign('RSA-SHA256', Buffer.from(input), privateKey);
      return `${input}.${signature.toString('base64url')}`;
    },
  };
}
