import type { Handle } from '../../../core/credential.js';
import type { Clock, EpochMs } from '../../../core/time.js';
import type { Found } from '../contract.js';
import { engineOf, type SecretSettings } from './engines.js';
import type { VaultLeases } from './leases.js';

/**
 * The places (paths of secrets that come with a lease) that are this installation's alone, and what is at them. A Vault's leases say neither whose they are nor
 * what they are of, so everything there is found by its id alone: it belongs to the lease whose handle has that id.
 */
export class Places {
  readonly #leases: VaultLeases;
  readonly #clock: Clock;
  readonly #own = new Set<string>();
  #since = new Map<string, EpochMs>();

  constructor(leases: VaultLeases, { clock }: { clock: Clock }) {
    this.#leases = leases;
    this.#clock = clock;
  }

  /** Takes up the place of a secret as it was declared. */
  know(settings: SecretSettings): void {
    const isLeased = settings.engine === 'database' || settings.engine === 'pki' || isLeasedPath(settings);
    if (isLeased && !settings.is_shared) this.#own.add(engineOf(settings).question(settings, 0).path);
  }

  covers({ lease, place }: Handle): boolean {
    return lease !== undefined && place !== undefined && this.#own.has(place);
  }

  async *find(signal: AbortSignal): AsyncIterable<Found> {
    const nowMs = this.#clock.now();
    const givenUp = new Set(this.#own.size > 0 ? await this.#leases.givenUp(signal) : []);
    const since = new Map<string, EpochMs>();
    for (const place of this.#own) {
      const here = new Set(await this.#leases.list(place, signal));
      for (const id of givenUp) if (id.startsWith(`${place}/`)) here.add(id);
      for (const id of here) since.set(id, this.#since.get(id) ?? nowMs);
    }
    this.#since = since;
    for (const [id, sinceMs] of since) {
      yield { handle: { lease: id }, sinceMs, ...(givenUp.has(id) && { givenUp: true }) };
    }
  }
}

function isLeasedPath(settings: SecretSettings): boolean {
  return settings.engine === 'path' && settings.revoke === 'lease';
}
