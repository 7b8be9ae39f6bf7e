import { Secret } from '../core/secret.js';
import type { Clock, EpochMs } from '../core/time.js';
import type { DpopProver } from './dpop-prover.js';
import type { TokenReply } from './wire.js';

export interface TokenRequest {
  /** A task's id, or `ref:<ref>`; absent when `subjectToken` is a task token that is passed on. */
  task?: string;
  /** The audience: the API the token is for. */
  resource: string;
  /** What of the task's tools; default: all that the resource has for it. */
  tools?: string[];
  /** Bind the token to a key made here (`dpop`). What comes over mTLS is bound to the certificate anyway. */
  binding?: 'dpop' | 'none';
  /** A person's token: then the agent acts on that person's behalf. */
  onBehalfOf?: string;
  /** A task token whose only audience is the issuer: narrowed, or passed on to us. */
  subjectToken?: string;
}

/** A token for one task, one resource and some tools. It prints as nothing: `headers()` puts it where it belongs. */
export class TaskToken {
  readonly accessToken: Secret<string>;
  readonly type: 'Bearer' | 'DPoP';
  readonly leaseId: string;
  readonly tools: string[];
  readonly issuedAtMs: EpochMs;
  readonly expiresAtMs: EpochMs;
  /** The whole answer but the token. */
  readonly reply: Omit<TokenReply, 'access_token'>;
  readonly #prover: DpopProver;
  readonly #clock: Clock;

  constructor(
    { access_token: accessToken, ...reply }: TokenReply,
    askedAtMs: EpochMs,
    prover: DpopProver,
    clock: Clock,
  ) {
    this.accessToken = new Secret(accessToken);
    this.reply = reply;
    this.type = reply.token_type;
    this.leaseId = reply.lease_id;
    this.tools = reply.scope === '' ? [] : reply.scope.split(' ');
    this.issuedAtMs = askedAtMs;
    this.expiresAtMs = askedAtMs + reply.expires_in * 1_000;
    this.#prover = prover;
    this.#clock = clock;
  }

  /** The headers of one request with this token; a bound one brings a fresh proof for exactly this method and URL. */
  headers(method: string, url: string): Record<string, string> {
    const token = this.accessToken.expose();
    if (this.type === 'Bearer') return { authorization: `Bearer ${token}` };
    const proof = this.#prover.prove({ method, url, nowMs: this.#clock.now(), accessToken: token });
    return { authorization: `DPoP ${token}`, dpop: proof };
  }

  /** Keeps the nonce of a server's `use_dpop_nonce` answer for the next `headers()`. */
  noteNonce(url: string, nonce: string | null): void {
    this.#prover.noteNonce(url, nonce);
  }
}
