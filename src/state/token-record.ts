import { createHmac } from 'node:crypto';
import { assert } from '../core/errors.js';
import type { LeaseRecord } from '../core/lease.js';
import { Bounded } from './bounded.js';

const PROFILES_MAX = 20_000;
const SUFFIX_CHARACTERS = 26;
const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';

/** What many token leases have in common; stored once under a keyed hash of itself. */
type Profile = Omit<
  LeaseRecord,
  | 'id'
  | 'kind'
  | 'taskId'
  | 'path'
  | 'position'
  | 'generations'
  | 'state'
  | 'createdAtMs'
  | 'expiresAtMs'
  | 'revokedAtMs'
  | 'revokedReason'
>;

/** A token lease as Redis holds it. */
export interface TokenRow {
  /** Its field in the hash of its second: the id's last 26 characters. */
  field: string;
  /** `<state><p when leases are below><expires>|<profile>|<position>|<path>|<generations>|<created>` then, once revoked, `|<when>|<why>`. */
  value: string;
  profileHash: string;
  profile: string;
}

/**
 * Token leases are many, so their records are small: one short row each, and one profile for all that an agent got under the same rules.
 * The row's first characters and its expiry are what scripts read (lua/grant.lua, lua/move-leases.lua); the rest is ours.
 */
export class TokenRecords {
  readonly #cell: string;
  readonly #key: Uint8Array;
  readonly #hashes = new Bounded<string>(PROFILES_MAX);
  readonly #profiles = new Bounded<Profile>(PROFILES_MAX);
  readonly #stored = new Bounded<true>(PROFILES_MAX);

  /** The hash is keyed, so that nobody can prepare two profiles that meet. */
  constructor(cell: string, cellKey: Uint8Array) {
    this.#cell = cell;
    this.#key = cellKey;
  }

  /** Whether a profile was in Redis when this broker last committed a lease with it. It may be gone since: the script says so. */
  isStored(profileHash: string): boolean {
    return this.#stored.get(profileHash) === true;
  }

  stored(profileHash: string): void {
    this.#stored.set(profileHash, true);
  }

  encode(lease: LeaseRecord): TokenRow {
    const profile = JSON.stringify(profileOf(lease));
    const profileHash = this.#hash(profile);
    const value = [
      `${lease.state === 'active' ? 'a' : 'r'}-${lease.expiresAtMs}`,
      profileHash,
      lease.position,
      lease.path.map((id) => this.#shorten(id)).join(','),
      lease.generations.join(','),
      lease.createdAtMs === timeOf(lease.id) ? '' : lease.createdAtMs,
    ].join('|');
    return { field: fieldOf(lease.id), value, profileHash, profile };
  }

  /** The profile's hash in a row: what has to be known before it can be decoded. */
  profileHashOf(value: string): string {
    return value.split('|', 2)[1] as string;
  }

  knows(profileHash: string): boolean {
    return this.#profiles.get(profileHash) !== undefined;
  }

  learn(profileHash: string, profile: string): void {
    this.#profiles.set(profileHash, JSON.parse(profile) as Profile);
  }

  decode(id: string, value: string): LeaseRecord {
    const [head = '', hash = '', position = '', path = '', generations = '', created, revokedAt, ...why] =
      value.split('|');
    const profile = this.#profiles.get(hash);
    assert(profile, 'a profile is learned before its leases are read');
    const ids = path === '' ? [] : path.split(',').map((short) => this.#lengthen(short));
    const taskId = ids.findLast((above) => above.startsWith('tsk_'));
    return {
      id,
      kind: 'token',
      ...(taskId !== undefined && { taskId }),
      path: ids,
      ...profile,
      position,
      generations: generations === '' ? [] : generations.split(',').map(Number),
      state: head[0] === 'a' ? 'active' : 'revoked',
      createdAtMs: created ? Number(created) : timeOf(id),
      expiresAtMs: Number(head.slice(2)),
      ...(revokedAt !== undefined && { revokedAtMs: Number(revokedAt), revokedReason: why.join('|') }),
    };
  }

  idOf(field: string): string {
    return field.length === SUFFIX_CHARACTERS ? `lse_${this.#cell}_${field}` : field;
  }

  #hash(profile: string): string {
    let hash = this.#hashes.get(profile);
    if (hash === undefined) {
      hash = createHmac('sha256', this.#key).update(profile).digest('base64url').slice(0, 16);
      this.#hashes.set(profile, hash);
    }
    return hash;
  }

  /** `t` and 26 characters for a task of this cell, `l` and 26 for a lease; any other id as it is. */
  #shorten(id: string): string {
    const kind = id.startsWith(`tsk_${this.#cell}_`) ? 't' : id.startsWith(`lse_${this.#cell}_`) ? 'l' : undefined;
    return kind ? kind + id.slice(-SUFFIX_CHARACTERS) : id;
  }

  #lengthen(short: string): string {
    if (short.length !== SUFFIX_CHARACTERS + 1) return short;
    return `${short[0] === 't' ? 'tsk' : 'lse'}_${this.#cell}_${short.slice(1)}`;
  }
}

export function fieldOf(leaseId: string): string {
  return leaseId.slice(-SUFFIX_CHARACTERS);
}

/** When an id was made: the first 48 bits of its UUIDv7. */
export function timeOf(id: string): number {
  let value = 0;
  for (const character of id.slice(-SUFFIX_CHARACTERS, 10 - SUFFIX_CHARACTERS)) {
    value = value * 32 + ALPHABET.indexOf(character);
  }
  return value;
}

export function secondOf(leaseId: string): number {
  return Math.floor(timeOf(leaseId) / 1_000);
}

/** Everything that a lease has not of its own. Members in another order make another profile, which is no harm. */
function profileOf(lease: LeaseRecord): Profile {
  const {
    id: _id,
    kind: _kind,
    taskId: _taskId,
    path: _path,
    position: _position,
    generations: _generations,
    state: _state,
    createdAtMs: _createdAtMs,
    expiresAtMs: _expiresAtMs,
    revokedAtMs: _revokedAtMs,
    revokedReason: _revokedReason,
    ...profile
  } = lease;
  return profile;
}
