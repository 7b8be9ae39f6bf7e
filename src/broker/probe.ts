import { createHash } from 'node:crypto';
import type { Evidence, SecretData } from '../core/credential.js';
import type { LeaseRecord } from '../core/lease.js';
import type { Secret } from '../core/secret.js';
import type { Backend, Credential } from '../plugins/backends/contract.js';
import type { Parts } from './parts.js';

/**
 * Whether a credential should be tried once it is to be dead: sensitive ones always, of the others a share, drawn by their ids. Where its backend
 * has no way to try one, the record says so.
 */
export function isProbeWanted({ settings }: Parts, lease: LeaseRecord): boolean {
  if (!isRevocable(lease)) return false;
  if (lease.sensitivity === 'confidential' || lease.sensitivity === 'restricted') return true;
  return createHash('sha256').update(lease.id).digest().readUInt32BE() < settings.probeShare * 2 ** 32;
}

/** Nobody is surprised that what cannot be revoked still works. */
function isRevocable({ revocability }: LeaseRecord): boolean {
  return revocability?.kind === 'instant' || revocability?.kind === 'eventual';
}

/** What a try says of a credential that its backend does not have any more; `alive` and `unclear` are no evidence of its death. */
export async function probe(
  backend: Backend,
  credential: Credential,
  data: Secret<SecretData> | undefined,
  signal: AbortSignal,
): Promise<Extract<Evidence, 'verified-dead' | 'not-probed'> | 'alive' | 'unclear'> {
  if (!backend.probe || !data) return 'not-probed';
  const tried = await backend.probe(credential, data, signal);
  if (tried.credential === 'accepted') return 'alive';
  return tried.credential === 'refused' && tried.control === 'accepted' ? 'verified-dead' : 'unclear';
}
