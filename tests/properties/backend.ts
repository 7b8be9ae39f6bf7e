import { BrokerError } from '../../src/core/errors.js';
import type { Clock, EpochMs } from '../../src/core/time.js';

/** A make-believe backend with its own memory: what exists there is asked of it and nobody else. */
export class Backend {
  readonly #clock: Clock;
  readonly #live = new Map<string, EpochMs>();
  down = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Makes the credential named after its lease; refuses past the intent's deadline. */
  async make(leaseId: string, deadlineMs: EpochMs): Promise<void> {
    this.#answer();
    if (this.#clock.now() >= deadlineMs) throw new BrokerError('unavailable', 'The deadline has passed.');
    this.#live.set(leaseId, this.#clock.now());
  }

  async revoke(leaseId: string): Promise<void> {
    this.#answer();
    this.#live.delete(leaseId);
  }

  async exists(leaseId: string): Promise<boolean> {
    this.#answer();
    return this.#live.has(leaseId);
  }

  async renew(leaseId: string): Promise<void> {
    this.#answer();
    if (!this.#live.has(leaseId)) throw new BrokerError('unavailable', 'There is no such thing.');
  }

  /** What really exists, for the oracle. */
  live(): string[] {
    return [...this.#live.keys()];
  }

  #answer(): void {
    if (this.down) throw new BrokerError('unavailable', 'The backend is down.');
  }
}
