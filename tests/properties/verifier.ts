import type { TaskClaims } from '../../src/core/claims.js';
import { epochOf, isBefore, ORIGIN, type Position } from '../../src/core/position.js';
import { type FeedEntry, RevocationTable } from '../../src/core/revocations.js';
import type { EpochMs } from '../../src/core/time.js';
import type { Line } from '../fakes/line.js';

export const STALE_MS = 10_000;

export type Verdict = 'accepted' | 'not-ready' | 'stale' | 'expired' | 'ahead' | 'revoked';

export interface VerifierBugs {
  /** Positions are not compared: an entry kills what came after it, too. */
  positionBlind?: boolean;
  /** A task's entry kills only that task's own tokens, none below it. */
  pathBlind?: boolean;
  /** Tokens live on past their exp. */
  expiryBlind?: boolean;
}

/** An enforcement point: it follows the feed at its own pace, may be cut off and restarted, and judges by its own table alone. */
export class Verifier {
  readonly #line: Line;
  readonly #bugs: VerifierBugs;
  #table = new RevocationTable();
  #cursor: Position = ORIGIN;
  #ready = false;
  #heardMs: EpochMs = 0;
  cut = false;
  /** The oracle's index when it had last applied everything up to the head. */
  caughtUpAt = -1;

  constructor(line: Line, bugs: VerifierBugs = {}) {
    this.#line = line;
    this.#bugs = bugs;
  }

  /** Takes up to `count` entries from the feed; a snapshot when it has none or the epoch is another. */
  pull(index: number, count = Number.POSITIVE_INFINITY): void {
    if (this.cut) return;
    const head = this.#line.head();
    if (!this.#ready || epochOf(head) !== epochOf(this.#cursor)) {
      for (const entry of this.#line.state.entries) this.#apply(entry);
      this.#cursor = head;
      this.#ready = true;
      this.#isCurrent(index, head);
      return;
    }
    // A head that went back within an epoch is no head to trust.
    if (isBefore(head, this.#cursor)) return;
    const fresh = this.#line.state.entries.filter((entry) => isBefore(this.#cursor, entry.pos));
    for (const entry of fresh.slice(0, count)) {
      this.#apply(entry);
      this.#cursor = entry.pos;
    }
    if (fresh.length <= count) {
      this.#cursor = head;
      this.#isCurrent(index, head);
    }
  }

  restart(): void {
    this.#table = new RevocationTable();
    this.#cursor = ORIGIN;
    this.#ready = false;
    this.caughtUpAt = -1;
  }

  judge(claims: TaskClaims, kid: string, nowMs: EpochMs): Verdict {
    if (!this.#ready) return 'not-ready';
    if (nowMs - this.#heardMs > STALE_MS) return 'stale';
    if (claims.exp * 1_000 <= nowMs && !this.#bugs.expiryBlind) return 'expired';
    if (isBefore(this.#cursor, claims.mayfly.pos)) return 'ahead';
    this.#table.expire(nowMs);
    const seen: TaskClaims = {
      ...claims,
      mayfly: {
        ...claims.mayfly,
        ...(this.#bugs.positionBlind && { pos: `${epochOf(this.#cursor)}-0-0` }),
        ...(this.#bugs.pathBlind && { path: claims.mayfly.path.slice(-1) }),
      },
    };
    return this.#table.find(seen, kid) ? 'revoked' : 'accepted';
  }

  #apply(entry: FeedEntry): void {
    this.#table.apply(structuredClone(entry));
  }

  #isCurrent(index: number, head: Position): void {
    this.#table.advance(head);
    this.#heardMs = this.#line.clock.now();
    this.caughtUpAt = index;
  }
}
