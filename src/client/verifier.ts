import { createHash, X509Certificate } from 'node:crypto';
import { type TaskClaims, toolsOf } from '../core/claims.js';
import { DPOP_WINDOW_MS, type DpopProof, DpopRefused, verifyDpop } from '../core/dpop.js';
import type { VerificationKey } from '../core/jwk.js';
import { JwsRefused } from '../core/jws.js';
import { type Place, placeOf } from '../core/position.js';
import { readTaskToken } from '../core/task-token.js';
import type { Clock, EpochMs } from '../core/time.js';
import { FeedFollower, type FeedStatus } from './feed-follower.js';
import { type BearerIdentity, type CertificateIdentity, isCertificate, tlsOf } from './identity.js';
import { KeySet } from './key-set.js';
import { InvalidRequest } from './mayfly-error.js';
import { OnceEach, Remembered } from './remembered.js';
import { type SteadyClock, steadyClock } from './steady-clock.js';
import { TokenRefusal } from './token-refusal.js';
import { type Fetch, nodeFetch } from './transport.js';
import { Warnings } from './warnings.js';

export { brokerFromEnv, type ToolBroker } from './environment.js';
export type { BearerIdentity, CertificateIdentity } from './identity.js';
export { TokenRefusal, type TokenRefusalCode, type TokenRefusalReason } from './token-refusal.js';

export interface VerifierOptions {
  /** The broker's issuer, exactly as in its tokens. */
  issuer: string;
  /** The one audience whose tokens are taken here. */
  audience: string;
  /** Who this tool is: one of the audience's owners, or the broker will not let it read the feed. */
  identity: BearerIdentity | CertificateIdentity;
  /** Where the broker is reached, when that is not the issuer. */
  url?: string;
  /** The cell whose feed is followed. */
  cell?: string;
  /** What to do when the feed has been silent for 10 s: take nothing (default), or go on with the tokens there are until they expire. */
  whenStale?: 'refuse' | 'until-expiry';
  /** Asked about each call of a token marked `call`; without one such tokens are refused (docs/guides/protect-a-tool.md). */
  decisionPoint?: DecisionPoint;
  /** Hears once what keeps good tokens out and only this tool's operator can mend. Default: a line on standard error. */
  onWarning?: (warning: string) => void;
  /** A private CA for the broker's certificate, PEM. */
  ca?: string | Buffer;
  /** Instead of node's own http(s); `ca` and a certificate identity are then its business. */
  fetch?: Fetch;
  clock?: Clock;
  /** Time that nobody sets, in ms; for tests. */
  elapsedMs?: () => number;
  limits?: Partial<VerifierLimits>;
  dpop?: {
    windowMs?: number;
    /** When proofs must carry a nonce: the one to send with a challenge, and whether one is ours. */
    nonce?: { current(): string; accepts(nonce: string): boolean };
  };
}

export interface VerifierLimits {
  /** How far the broker's clock may be ahead of ours. It lengthens no life. */
  skewMs: number;
  /** Longest `exp - iat`. */
  lifeMsMax: number;
  /** Feed silence that is reported, and that refuses. */
  reportStaleMs: number;
  refuseStaleMs: number;
  /** How long a token whose position is ahead of the feed waits for it. */
  waitForFeedMs: number;
  rememberedTokensMax: number;
  rememberedProofsMax: number;
}

const LIMITS: VerifierLimits = {
  skewMs: 30_000,
  lifeMsMax: 900_000,
  reportStaleMs: 5_000,
  refuseStaleMs: 10_000,
  waitForFeedMs: 1_000,
  rememberedTokensMax: 10_000,
  rememberedProofsMax: 100_000,
};

/** What came with a token. */
export interface Presented {
  /** The scheme it came under. A DPoP-bound token under `Bearer` is refused (RFC 9449 section 7.2). */
  scheme?: 'Bearer' | 'DPoP';
  /** The `DPoP` header. */
  dpop?: string;
  /** Method and absolute URL of the request, as the tool knows itself: what a proof has to name. */
  method?: string;
  url?: string;
  /** The peer's certificate from our own TLS layer, never from a header: DER, or as node reads it. */
  peerCertificate?: Buffer | X509Certificate;
  /** The tool about to be used; it has to be in the token's scope. */
  tool?: string;
  /** For the decision point. */
  arguments?: unknown;
}

/** Who calls, for which task. */
export interface VerifiedTask {
  claims: TaskClaims;
  /** SPIFFE ID of the agent that was given the token. */
  agent: string;
  /** The task it works on; absent in a token without one. */
  taskId: string | undefined;
  tools: string[];
  expiresAtMs: EpochMs;
  kid: string;
}

/** Decides one call (AuthZEN, or whatever knows better). A throw is a refusal. */
export type DecisionPoint = (call: {
  task: VerifiedTask;
  tool: string | undefined;
  method: string | undefined;
  url: string | undefined;
  arguments: unknown;
}) => Promise<boolean>;

export interface VerifierStatus {
  /** True when tokens are being taken. */
  ready: boolean;
  /** The feed has been silent for 5 s. */
  stale: boolean;
  feed: FeedStatus;
  keys: { loaded: boolean; kids: string[]; lastProblem?: string };
}

export interface Verifier {
  readonly audience: string;
  readonly issuer: string;
  /**
   * Checks a token: signature, `typ`, issuer, the one audience, times, sender constraint and the feed, all local. Waits only
   * for a key or a place of the feed that is about to come, and for the decision point. Throws TokenRefusal.
   */
  verify(token: string, presented?: Presented): Promise<VerifiedTask>;
  /** The same without any waiting: what would have to be waited for is refused. */
  verifyNow(token: string, presented?: Presented): VerifiedTask;
  /** Calls `onDead` once, when the task's token expires, is revoked, or cannot be checked any more. The returned function ends the watch. */
  watch(task: VerifiedTask, onDead: (reason: TokenRefusal) => void): () => void;
  /** Resolves once the keys and a first complete snapshot are there; rejects after `timeoutMs`. Until then everything is refused. */
  ready(timeoutMs?: number): Promise<void>;
  status(): VerifierStatus;
  /** A fresh nonce for a `use_dpop_nonce` challenge. */
  dpopNonce(): string | undefined;
  close(): Promise<void>;
}

/** Starts to load keys and to follow the feed in the background, and checks tokens from what it has. */
export function createVerifier(options: VerifierOptions): Verifier {
  return new TaskVerifier(options);
}

interface Known {
  /** The exact bytes. They are found by their signature, because hashing all of a token costs more than everything else here. */
  token: string;
  task: VerifiedTask;
  place: Place;
  /** The key object it was verified with; another one under that kid means verifying again. */
  key: VerificationKey;
}

class TaskVerifier implements Verifier {
  readonly audience: string;
  readonly issuer: string;
  readonly #options: VerifierOptions;
  readonly #limits: VerifierLimits;
  readonly #cell: string;
  readonly #clock: SteadyClock;
  readonly #keys: KeySet;
  readonly #feed: FeedFollower;
  readonly #known: Remembered<Known>;
  readonly #proofs: OnceEach;
  readonly #watches = new Set<() => void>();
  readonly #watchTimer: NodeJS.Timeout;
  #closed = false;
  readonly #warnings: Warnings<'settings' | 'decision-point' | 'feed' | 'keys'>;

  constructor(options: VerifierOptions) {
    checkOptions(options);
    this.#options = options;
    this.audience = options.audience;
    this.issuer = options.issuer;
    this.#cell = options.cell ?? 'a';
    this.#limits = { ...LIMITS, ...options.limits };
    // A clock that was passed in is all the time there is, so that a test turns one hand only.
    const { clock } = options;
    this.#clock = steadyClock(clock, options.elapsedMs ?? (clock ? () => clock.now() : undefined));
    this.#warnings = new Warnings(options.onWarning);
    this.#known = new Remembered(this.#limits.rememberedTokensMax);
    this.#proofs = new OnceEach(this.#limits.rememberedProofsMax);
    const { identity } = options;
    const url = (options.url ?? options.issuer).replace(/\/$/, '');
    const fetch = options.fetch ?? nodeFetch(tlsOf(identity, options.ca));
    this.#keys = new KeySet({
      url,
      fetch,
      elapsedMs: this.#clock.elapsedMs,
      onProblem: (problem) => {
        // While there are keys, a fetch that failed is made up for by the next one.
        if (!this.#keys.status().loaded) this.#warn('keys', `${url}/.well-known/jwks.json cannot be read`, problem);
      },
      onLoaded: () => this.#warnings.over('keys'),
    });
    this.#feed = new FeedFollower({
      url,
      fetch,
      clock: this.#clock,
      ...(isCertificate(identity) ? {} : { authorization: () => identity.bearer(options.issuer) }),
      onEntry: ({ match }) => {
        if (typeof match.key === 'string') this.#keys.withdraw(match.key);
      },
      onProblem: (problem) => {
        // A broker that restarts is back before anybody has to know.
        if (this.status().stale) this.#warn('feed', `${url}/v1/feed cannot be followed`, problem);
      },
      onCaughtUp: () => this.#warnings.over('feed'),
    });
    void this.#keys.refresh();
    this.#watchTimer = setInterval(() => {
      for (const look of [...this.#watches]) look();
    }, 1_000);
    this.#watchTimer.unref();
  }

  async verify(token: string, presented: Presented = {}): Promise<VerifiedTask> {
    let task: VerifiedTask;
    try {
      task = this.#check(token, presented);
    } catch (error) {
      if (!(error instanceof TokenRefusal) || !(await this.#awaited(token, error))) throw error;
      task = this.#check(token, presented);
    }
    if (task.claims.mayfly.call) await this.#decide(task, presented);
    return task;
  }

  verifyNow(token: string, presented: Presented = {}): VerifiedTask {
    const task = this.#check(token, presented);
    if (task.claims.mayfly.call) {
      throw new TokenRefusal(
        'misconfigured',
        'decision-point-missing',
        'the token wants each call decided, and verifyNow waits for no decision: use verify',
      );
    }
    return task;
  }

  watch(task: VerifiedTask, onDead: (reason: TokenRefusal) => void): () => void {
    let timer: NodeJS.Timeout | undefined;
    const end = () => {
      unwatch();
      clearTimeout(timer);
      this.#watches.delete(look);
    };
    const die = (refusal: TokenRefusal) => {
      end();
      onDead(refusal);
    };
    const look = () => {
      const refusal = this.#expiry(task) ?? this.#staleness();
      if (refusal) die(refusal);
    };
    const unwatch = this.#feed.watch(task.claims, task.kid, () => die(revoked()));
    this.#watches.add(look);
    timer = setTimeout(look, Math.max(0, task.expiresAtMs - this.#clock.now()) + 1);
    timer.unref();
    // What came between the check and this watch.
    if (this.#feed.table.find(task.claims, task.kid)) die(revoked());
    return end;
  }

  async ready(timeoutMs = 10_000): Promise<void> {
    const isReady = () => this.#feed.complete && this.#keys.status().loaded;
    const deadlineMs = performance.now() + timeoutMs;
    while (!isReady()) {
      const leftMs = deadlineMs - performance.now();
      if (this.#closed) throw new TokenRefusal('unavailable', 'not-ready', 'the verifier was closed');
      if (leftMs <= 0) {
        const { feed, keys } = this.status();
        const problem = feed.lastProblem ?? keys.lastProblem ?? 'no complete snapshot yet';
        throw new TokenRefusal('unavailable', 'not-ready', problem);
      }
      if (!this.#keys.status().loaded) await this.#keys.refresh();
      await this.#feed.until(isReady, Math.min(leftMs, 250));
    }
  }

  status(): VerifierStatus {
    const feed = this.#feed.status();
    const keys = this.#keys.status();
    return {
      ready: feed.complete && keys.loaded && this.#staleness() === undefined,
      stale: feed.ageMs === undefined || feed.ageMs > this.#limits.reportStaleMs,
      feed,
      keys,
    };
  }

  dpopNonce(): string | undefined {
    return this.#options.dpop?.nonce?.current();
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#watchTimer);
    this.#watches.clear();
    this.#keys.close();
    await this.#feed.close();
  }

  /** Everything but the decision point, from what is here now. */
  #check(token: string, presented: Presented): VerifiedTask {
    const unready = this.#staleness();
    if (unready) throw unready;
    const { task, place } = this.#genuine(token);
    const { claims, kid } = task;
    const expired = this.#expiry(task);
    if (expired) throw expired;
    if (claims.mayfly.cell !== this.#cell) throw new TokenRefusal('token_refused', 'cell', 'a token of another cell');
    if (!this.#feed.hasReached(place)) {
      throw new TokenRefusal('token_refused', 'position-ahead', 'the token is ahead of the feed');
    }
    if (this.#feed.table.find(claims, kid)) throw revoked();
    this.#checkBinding(token, claims, presented);
    if (presented.tool !== undefined && !task.tools.includes(presented.tool)) {
      throw new TokenRefusal('scope_insufficient', 'tool', `the token does not carry ${presented.tool}`);
    }
    if (claims.mayfly.call && !this.#options.decisionPoint) {
      this.#warnings.warn(
        'decision-point',
        `a good token for ${this.audience} was refused (503): policy wants each of its calls decided, and this verifier has no decisionPoint to ask. Give it one: docs/guides/protect-a-tool.md.`,
      );
      throw new TokenRefusal('misconfigured', 'decision-point-missing', 'the token wants each call decided');
    }
    return task;
  }

  /** Reads the token, or remembers having read these very bytes under a key that still counts. */
  #genuine(token: string): Known {
    const signature = token.slice(token.lastIndexOf('.') + 1);
    const known = this.#known.get(signature);
    if (known?.token === token && this.#keys.keyOf(known.task.kid) === known.key) return known;
    let read: ReturnType<typeof readTaskToken>;
    let used: VerificationKey | undefined;
    try {
      read = readTaskToken(token, {
        issuer: this.issuer,
        keyOf: (kid) => {
          used = this.#keys.keyOf(kid);
          return used;
        },
        nowMs: this.#clock.now(),
        skewMs: this.#limits.skewMs,
        lifeMsMax: this.#limits.lifeMsMax,
      });
    } catch (error) {
      if (!(error instanceof JwsRefused)) throw error;
      if (error.kind === 'payload' && error.message === 'another issuer') {
        this.#warnings.warn(
          'settings',
          `a token that the broker signed was refused: its issuer is not ${this.issuer}. Set issuer (MAYFLY_ISSUER) to what the broker calls itself.`,
        );
      }
      const reason = error.kind === 'times' && error.message === 'expired' ? 'expired' : error.kind;
      throw new TokenRefusal('token_refused', reason, error.message, error);
    }
    const { claims, kid } = read;
    if (claims.aud !== this.audience)
      throw new TokenRefusal('token_refused', 'audience', 'a token for another audience');
    const task: VerifiedTask = {
      claims,
      agent: claims.client_id,
      taskId: claims.mayfly.path.findLast((id) => id.startsWith('tsk_')),
      tools: toolsOf(claims),
      expiresAtMs: claims.exp * 1_000,
      kid,
    };
    const fresh: Known = { token, task, place: placeOf(claims.mayfly.pos), key: used as VerificationKey };
    this.#known.set(signature, fresh);
    return fresh;
  }

  #checkBinding(token: string, { cnf }: TaskClaims, presented: Presented): void {
    if (!cnf) {
      if (presented.scheme !== 'DPoP') return;
      throw new TokenRefusal('token_refused', 'unbound', 'a token that is not bound came under the DPoP scheme');
    }
    if ('x5t#S256' in cnf) {
      if (thumbprintOf(presented.peerCertificate) === cnf['x5t#S256']) return;
      throw new TokenRefusal('token_refused', 'binding', 'the token is bound to another certificate');
    }
    if (presented.scheme === 'Bearer') {
      throw new TokenRefusal('token_refused', 'binding', 'a DPoP-bound token came under the Bearer scheme');
    }
    this.#checkProof(token, cnf.jkt, presented);
  }

  #checkProof(token: string, jkt: string, { dpop, method, url }: Presented): void {
    if (dpop === undefined) throw new TokenRefusal('dpop_invalid', 'dpop', 'a bound token without a proof');
    const { nonce, windowMs = DPOP_WINDOW_MS } = this.#options.dpop ?? {};
    const nowMs = this.#clock.now();
    let proof: DpopProof;
    try {
      proof = verifyDpop({
        proof: dpop,
        method: method ?? '',
        url: url ?? '',
        nowMs,
        windowMs,
        accessToken: token,
        jkt,
        ...(nonce ? { nonce: (given: string | undefined) => given !== undefined && nonce.accepts(given) } : {}),
      });
    } catch (error) {
      if (!(error instanceof DpopRefused)) throw error;
      if (error.reason === 'nonce') throw new TokenRefusal('dpop_nonce_required', 'dpop-nonce', error.message, error);
      if (error.reason === 'binding') throw new TokenRefusal('token_refused', 'binding', error.message, error);
      throw new TokenRefusal('dpop_invalid', 'dpop', error.message, error);
    }
    const taken = this.#proofs.take(proof.replayKey, proof.replayUntilMs, nowMs);
    if (taken === 'repeated') throw new TokenRefusal('dpop_invalid', 'dpop-replay', 'this proof was used before');
    if (taken === 'full')
      throw new TokenRefusal('unavailable', 'dpop-replay', 'there is no room to remember the proof');
  }

  /** Waits for what is about to come, and says whether it came: a key published after we last asked, or the feed's next entry. */
  async #awaited(token: string, { reason }: TokenRefusal): Promise<boolean> {
    if (reason === 'kid' && this.#keys.mayRefresh()) {
      await this.#keys.refresh();
      return true;
    }
    if (reason !== 'position-ahead') return false;
    const { place } = this.#genuine(token);
    return this.#feed.until(() => this.#feed.hasReached(place), this.#limits.waitForFeedMs);
  }

  async #decide(task: VerifiedTask, { tool, method, url, arguments: given }: Presented): Promise<void> {
    let allowed: boolean | undefined;
    try {
      allowed = await this.#options.decisionPoint?.({ task, tool, method, url, arguments: given });
    } catch (error) {
      throw new TokenRefusal('unavailable', 'decision-point', 'the decision point failed', error);
    }
    if (allowed !== true) throw new TokenRefusal('denied', 'denied', 'the decision point said no');
    // It took time: what was revoked meanwhile is dead.
    const over = this.#expiry(task) ?? (this.#feed.table.find(task.claims, task.kid) ? revoked() : undefined);
    if (over) throw over;
  }

  #warn(trouble: 'feed' | 'keys', what: string, problem: string): void {
    const isTaking = this.#feed.complete && this.#options.whenStale === 'until-expiry';
    const effect = isTaking ? 'revocations are not heard of' : 'tokens are refused with 503';
    this.#warnings.warn(trouble, `${what}, and until it can be, ${effect}: ${problem}`);
  }

  #expiry(task: VerifiedTask): TokenRefusal | undefined {
    if (this.#clock.now() < task.expiresAtMs) return undefined;
    return new TokenRefusal('token_refused', 'expired', 'the token has expired');
  }

  /** Why nothing can be taken now: no complete snapshot yet, or silence past its limit. */
  #staleness(): TokenRefusal | undefined {
    if (!this.#feed.complete)
      return new TokenRefusal('unavailable', 'not-ready', 'no complete snapshot of the feed yet');
    if (this.#options.whenStale === 'until-expiry') return undefined;
    const ageMs = this.#feed.ageMs();
    if (ageMs !== undefined && ageMs <= this.#limits.refuseStaleMs) return undefined;
    return new TokenRefusal('unavailable', 'stale', 'the feed has been silent for too long');
  }
}

/** What is missing is missing when the tool starts, and not at its first request. */
function checkOptions({ issuer, audience, identity }: Partial<VerifierOptions>): void {
  for (const [field, value] of Object.entries({ issuer, audience })) {
    if (typeof value !== 'string' || value === '') {
      throw invalid(field, `A verifier needs ${field}, as it stands in the tokens.`);
    }
  }
  if (typeof identity === 'object' && identity !== null && ('bearer' in identity || 'cert' in identity)) return;
  throw invalid(
    'identity',
    'A verifier needs the identity of its tool, to read the feed of revocations: a certificate with its key, or a bearer function; brokerFromEnv() has one from the environment.',
  );
}

function invalid(field: string, message: string): InvalidRequest {
  return new InvalidRequest({ code: 'invalid_request', status: 0, field, message: `${field}: ${message}` });
}

function revoked(): TokenRefusal {
  return new TokenRefusal('token_refused', 'revoked', 'the token was revoked');
}

/** RFC 8705 section 3.1: SHA-256 of the DER. */
function thumbprintOf(certificate: Buffer | X509Certificate | undefined): string | undefined {
  if (certificate === undefined) return undefined;
  const der = certificate instanceof X509Certificate ? certificate.raw : certificate;
  return createHash('sha256').update(der).digest('base64url');
}
