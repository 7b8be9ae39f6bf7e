import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto';
import { assert, BrokerError } from '../core/errors.js';
import { Secret } from '../core/secret.js';

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** What rests in Redis encrypted, and what only has to be ours. Each purpose has keys of its own. */
export type Purpose = 'key-ring' | 'cell-key' | 'answer' | 'lock' | 'bundle' | 'backend' | 'probe' | 'kept';

/**
 * AES-256-GCM and HMAC-SHA-256 under keys derived from the root key, bound to a cell, a purpose and a place. What was moved, changed or
 * written by somebody else is refused as `internal`, never returned.
 */
export class Encryption {
  readonly #rootKey: Uint8Array;
  readonly #cell: string;
  readonly #keys = new Map<string, Uint8Array>();

  constructor(rootKey: Uint8Array, cell: string) {
    assert(rootKey.length === KEY_BYTES, 'the root key has 32 bytes');
    this.#rootKey = rootKey;
    this.#cell = cell;
  }

  encrypt(purpose: Purpose, place: string, plain: Uint8Array): string {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv('aes-256-gcm', this.#key('encrypt', purpose), nonce);
    cipher.setAAD(this.#label(purpose, place));
    const body = Buffer.concat([cipher.update(plain), cipher.final()]);
    return Buffer.concat([nonce, cipher.getAuthTag(), body]).toString('base64url');
  }

  decrypt(purpose: Purpose, place: string, encrypted: string): Buffer {
    const bytes = Buffer.from(encrypted, 'base64url');
    try {
      const decipher = createDecipheriv('aes-256-gcm', this.#key('encrypt', purpose), bytes.subarray(0, NONCE_BYTES), {
        authTagLength: TAG_BYTES,
      });
      decipher.setAAD(this.#label(purpose, place));
      decipher.setAuthTag(bytes.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES));
      return Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES + TAG_BYTES)), decipher.final()]);
    } catch (cause) {
      throw tampered(purpose, place, cause);
    }
  }

  /** A secret that has to rest in Redis: out of its wrapper only on its way into the cipher, and back in on the way out. */
  encryptSecret(purpose: Purpose, place: string, secret: Secret<unknown>): string {
    return this.encrypt(purpose, place, Buffer.from(JSON.stringify(secret.expose())));
  }

  decryptSecret<T>(purpose: Purpose, place: string, encrypted: string): Secret<T> {
    return new Secret(JSON.parse(this.decrypt(purpose, place, encrypted).toString()) as T);
  }

  /** Text with a proof that it came from somebody who has the root key. */
  sign(purpose: Purpose, place: string, text: string): string {
    return `${this.#mac(purpose, place, text).toString('base64url')}.${text}`;
  }

  verify(purpose: Purpose, place: string, signed: string): string {
    const dot = signed.indexOf('.');
    const text = signed.slice(dot + 1);
    const mac = Buffer.from(signed.slice(0, Math.max(dot, 0)), 'base64url');
    const expected = this.#mac(purpose, place, text);
    if (mac.length !== expected.length || !timingSafeEqual(mac, expected)) throw tampered(purpose, place);
    return text;
  }

  /** The same for the same value at the same place; without the root key nothing is learned from it. */
  fingerprint(purpose: Purpose, place: string, value: Secret<string>): string {
    return this.#mac(purpose, place, value.expose()).toString('base64url');
  }

  #mac(purpose: Purpose, place: string, text: string): Buffer {
    return createHmac('sha256', this.#key('sign', purpose)).update(this.#label(purpose, place)).update(text).digest();
  }

  #key(use: 'encrypt' | 'sign', purpose: Purpose): Uint8Array {
    const info = `mayfly/1/${use}/${purpose}`;
    let key = this.#keys.get(info);
    if (!key) {
      key = new Uint8Array(hkdfSync('sha256', this.#rootKey, this.#cell, info, KEY_BYTES));
      this.#keys.set(info, key);
    }
    return key;
  }

  /** No part can run into the next: none of them holds a NUL. */
  #label(purpose: Purpose, place: string): Buffer {
    return Buffer.from(`${this.#cell}\0${purpose}\0${place}\0`);
  }
}

function tampered(purpose: Purpose, place: string, cause?: unknown): BrokerError {
  return new BrokerError('internal', 'Something went wrong inside.', {
    reason: `the ${purpose} at ${place} in Redis was not written with this root key, or was changed since`,
    ...(cause !== undefined && { cause }),
  });
}
