import type { Evidence, Handle, SecretData } from '../core/credential.js';
import type { LeaseRecord } from '../core/lease.js';
import type { Cell } from './cell.js';
import type { Kept } from './stores.js';

/** What of a credential's record changes, by its field in Redis; the rest is one JSON text under `record`. */
const CHANGING = [
  'state',
  'expires',
  'generations',
  'bundle',
  'deadline',
  'revoking',
  'revoked',
  'reason',
  'attempts',
  'problem',
  'next',
  'evidence',
  'residue',
  'stuck',
] as const;

type Changing = Partial<Record<(typeof CHANGING)[number] | 'record', string>>;

/** Parts of the handle have a field each: what becomes known while a credential is made is added to what was planned, by one write. */
const HANDLE = 'h:';

/** The fields of a new credential; at commit, of the same one with what became known. */
export function writeCredential(lease: LeaseRecord): string[] {
  const { state, expiresAtMs, generations, bundle, handle, intentDeadlineMs: _, ...fixed } = lease;
  return [
    'record',
    JSON.stringify(fixed),
    'state',
    state,
    'expires',
    String(expiresAtMs),
    'generations',
    generations.join(','),
    'bundle',
    bundle,
    // For the script that renews, and for counting without the record; the record has them too.
    'position',
    lease.position,
    'backend',
    lease.backend ?? '',
    ...writeHandle(handle),
  ];
}

export function writeHandle(handle: Handle = {}): string[] {
  return Object.entries(handle).flatMap(([part, value]) => [HANDLE + part, value]);
}

/** What rests encrypted beside the record. What cannot be read is not there: a credential is revoked without it all the same. */
export function readKept(
  { encryption, observe }: Pick<Cell, 'encryption' | 'observe'>,
  leaseId: string,
  encrypted: Partial<Record<keyof Kept, string | null>>,
): Kept {
  const kept: Kept = {};
  for (const name of ['probe', 'kept'] as const) {
    const text = encrypted[name];
    if (!text) continue;
    try {
      kept[name] = encryption.decryptSecret<SecretData>(name, leaseId, text);
    } catch {
      observe({ event: 'credential.unreadable', level: 'error', lease: leaseId, what: name });
    }
  }
  return kept;
}

/** A credential from the fields and values of its hash. What is encrypted in it is read by nobody who reads this. */
export function readCredential(fieldsAndValues: readonly string[]): LeaseRecord {
  const fields: Changing = {};
  const handle: Record<string, string> = {};
  for (let at = 0; at < fieldsAndValues.length; at += 2) {
    const [field, value] = [fieldsAndValues[at] as string, fieldsAndValues[at + 1] as string];
    if (field.startsWith(HANDLE)) handle[field.slice(HANDLE.length)] = value;
    else fields[field as keyof Changing] = value;
  }
  return {
    ...(JSON.parse(fields.record ?? '{}') as LeaseRecord),
    state: fields.state as LeaseRecord['state'],
    expiresAtMs: Number(fields.expires),
    generations: fields.generations ? fields.generations.split(',').map(Number) : [],
    bundle: fields.bundle ?? '',
    ...(Object.keys(handle).length > 0 && { handle }),
    ...(fields.deadline !== undefined && { intentDeadlineMs: Number(fields.deadline) }),
    ...(fields.revoking !== undefined && { revokingAtMs: Number(fields.revoking) }),
    ...(fields.revoked !== undefined && { revokedAtMs: Number(fields.revoked) }),
    ...(fields.reason !== undefined && { revokedReason: fields.reason }),
    ...(fields.attempts !== undefined && { attempts: Number(fields.attempts) }),
    ...(fields.problem !== undefined && { lastProblem: fields.problem }),
    ...(fields.next !== undefined && { nextAttemptMs: Number(fields.next) }),
    ...(fields.evidence !== undefined && { evidence: fields.evidence as Evidence }),
    ...(fields.residue !== undefined && { residue: fields.residue }),
    ...(fields.stuck !== undefined && { stuck: true as const }),
  };
}
