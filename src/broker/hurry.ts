import type { LeaseRecord } from '../core/lease.js';
import type { Parts } from './parts.js';

/** What is moved in bulk is left to the sweeper, so that nobody who ends one task waits behind it. */
const AT_ONCE_MAX = 100;

/** Sends for hands to revoke credentials that are due now. The due index has them already: this only makes it quick. */
export function hurry(parts: Parts, leases: readonly Pick<LeaseRecord, 'id' | 'kind' | 'backend'>[]): void {
  const credentials = leases.filter(({ kind }) => kind === 'credential');
  if (credentials.length > AT_ONCE_MAX) return;
  for (const { id, backend } of credentials) {
    parts.schedule.add({ name: 'retire-credential', id, ...(backend !== undefined && { backend }) });
  }
}
