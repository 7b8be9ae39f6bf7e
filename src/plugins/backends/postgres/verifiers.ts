import { createHash, createHmac, pbkdf2, randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import { Secret } from '../../../core/secret.js';

const derive = promisify(pbkdf2);

const PASSWORD_BYTES = 32;
const SALT_BYTES = 16;
const STOCK = 128;
/** The thread pool is everybody's: this many derivations at a time leave it usable. */
const MAKERS = 2;

/** A password that nobody has yet, and what the server needs to recognise it. */
export interface MadePassword {
  password: Secret<string>;
  verifier: string;
}

/**
 * Passwords of 256 random bits with their SCRAM-SHA-256 verifiers (RFC 5803), made ahead in the thread pool: the verifier does not depend on whose it
 * will be, and its rounds would otherwise be most of the time that an issue takes.
 */
export class Verifiers {
  readonly #iterations: number;
  readonly #stock: MadePassword[] = [];
  readonly #waiting: { resolve(made: MadePassword): void; reject(error: unknown): void }[] = [];
  #makers = 0;
  #isClosed = false;

  constructor(iterations: number) {
    this.#iterations = iterations;
  }

  take(): Promise<MadePassword> {
    const made = this.#stock.pop();
    this.#fill();
    if (made) return Promise.resolve(made);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#fill();
    });
  }

  close(): void {
    this.#isClosed = true;
    this.#stock.length = 0;
  }

  #fill(): void {
    while (
      this.#makers < MAKERS &&
      !this.#isClosed &&
      this.#stock.length + this.#makers < STOCK + this.#waiting.length
    ) {
      this.#makers++;
      makePassword(this.#iterations)
        .then(
          (made) => {
            const next = this.#waiting.shift();
            if (next) next.resolve(made);
            else this.#stock.push(made);
          },
          (error: unknown) => this.#waiting.shift()?.reject(error),
        )
        .finally(() => {
          this.#makers--;
          this.#fill();
        });
    }
  }
}

async function makePassword(iterations: number): Promise<MadePassword> {
  const password = randomBytes(PASSWORD_BYTES).toString('base64url');
  const salt = randomBytes(SALT_BYTES);
  const salted = await derive(password, salt, iterations, 32, 'sha256');
  const clientKey = createHmac('sha256', salted).update('Client Key').digest();
  const storedKey = createHash('sha256').update(clientKey).digest('base64');
  const serverKey = createHmac('sha256', salted).update('Server Key').digest('base64');
  return {
    password: new Secret(password),
    verifier: `SCRAM-SHA-256$${iterations}:${salt.toString('base64')}$${storedKey}:${serverKey}`,
  };
}
