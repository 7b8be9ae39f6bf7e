import type { Handle } from '../../../core/credential.js';
import type { Observe } from '../../../core/observe.js';
import type { Clock, EpochMs } from '../../../core/time.js';
import { BackendProblem, type Found } from '../contract.js';
import { engineOf, type SecretSettings } from './engines.js';
import type { VaultLeases } from './leases.js';

/**
 * The places (paths of secrets that come with a lease) that are this installation's alone, and what is at them. A Vault's leases say neither whose they are nor
 * what they are of, so everything there is found by its id alone: it belongs to the lease whose handle has that id.
 */
export class Places {
  readonly #leases: VaultLeases;
  readonly #deps: { name: string; clock: Clock; observe: Observe };
  readonly #own = new Set<string>();
  /** Those that this broker may not list: a secret that was declared wrong must not hide what is at the others. */
  readonly #closed = new Set<string>();
  readonly #names = new Map<string, { leaseId: string; sinceMs: EpochMs }>();

  constructor(leases: VaultLeases, deps: { name: string; clock: Clock; observe: Observe }) {
    this.#leases = leases;
    this.#deps = deps;
  }

  /** Takes up the place of a secret as it was declared. */
  know(settings: SecretSettings): void {
    const isLeased = settings.engine === 'database' || settings.engine === 'pki' || isLeasedPath(settings);
    if (isLeased && !settings.is_shared) this.#own.add(engineOf(settings).question(settings, 0).path);
  }

  /** Whose a lease is, as long as the process remembers that made it. */
  name(lease: string, leaseId: string): void {
    this.#names.set(lease, { leaseId, sinceMs: this.#deps.clock.now() });
  }

  covers({ lease, place }: Handle): boolean {
    return lease !== undefined && place !== undefined && this.#own.has(place) && !this.#closed.has(place);
  }

  async *find(signal: AbortSignal): AsyncIterable<Found> {
    const nowMs = this.#deps.clock.now();
    const givenUp = new Set(
      this.#own.size > 0 ? await this.#permitted('sys/leases', () => this.#leases.givenUp(signal)) : [],
    );
    const there = new Set<string>();
    for (const place of this.#own) {
      for (const id of await this.#permitted(place, () => this.#leases.list(place, signal))) there.add(id);
      for (const id of givenUp) if (id.startsWith(`${place}/`)) there.add(id);
    }
    for (const [id, { sinceMs }] of this.#names) if (!there.has(id) && sinceMs < nowMs) this.#names.delete(id);
    for (const id of there) {
      const leaseId = this.#names.get(id)?.leaseId;
      yield {
        ...(leaseId !== undefined && { leaseId }),
        handle: { lease: id },
        ageMs: async (own) => (await this.#leases.lookUpLease(id, own))?.ageMs,
        ...(givenUp.has(id) && { givenUp: true }),
      };
    }
  }

  /** Nothing where it may not look, said once; any other problem ends the search, since what was not seen must not be taken for gone. */
  async #permitted(place: string, list: () => Promise<string[]>): Promise<string[]> {
    try {
      const listed = await list();
      this.#closed.delete(place);
      return listed;
    } catch (error) {
      if (!(error instanceof BackendProblem) || error.kind !== 'forbidden') throw error;
      if (!this.#closed.has(place)) {
        const { observe, name } = this.#deps;
        observe({ event: 'backend.not_listed', level: 'warn', backend: name, place, problem: error.message });
      }
      this.#closed.add(place);
      return [];
    }
  }
}

function isLeasedPath(settings: SecretSettings): boolean {
  return settings.engine === 'path' && settings.revoke === 'lease';
}
