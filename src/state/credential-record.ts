import type { LeaseRecord } from '../core/lease.js';

/** What of a credential's record changes, by its field in Redis; the rest is one JSON text under `record`. */
const CHANGING = [
  'state',
  'expires',
  'generations',
  'bundle',
  'revoked',
  'reason',
  'attempts',
  'problem',
  'next',
] as const;

type Changing = Partial<Record<(typeof CHANGING)[number] | 'record', string>>;

/** The fields of a new credential. */
export function writeCredential(lease: LeaseRecord): string[] {
  const { state, expiresAtMs, generations, bundle, ...fixed } = lease;
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
  ];
}

/** A credential from the fields and values of its hash. */
export function readCredential(fieldsAndValues: readonly string[]): LeaseRecord {
  const fields: Changing = {};
  for (let at = 0; at < fieldsAndValues.length; at += 2) {
    fields[fieldsAndValues[at] as keyof Changing] = fieldsAndValues[at + 1] as string;
  }
  return {
    ...(JSON.parse(fields.record ?? '{}') as LeaseRecord),
    state: fields.state as LeaseRecord['state'],
    expiresAtMs: Number(fields.expires),
    generations: fields.generations ? fields.generations.split(',').map(Number) : [],
    bundle: fields.bundle ?? '',
    ...(fields.revoked !== undefined && { revokedAtMs: Number(fields.revoked) }),
    ...(fields.reason !== undefined && { revokedReason: fields.reason }),
    ...(fields.attempts !== undefined && { attempts: Number(fields.attempts) }),
    ...(fields.problem !== undefined && { lastProblem: fields.problem }),
    ...(fields.next !== undefined && { nextAttemptMs: Number(fields.next) }),
  };
}
