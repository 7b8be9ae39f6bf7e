import { createHmac } from 'node:crypto';
import { assert } from '../core/errors.js';
import type { LeaseRecord } from '../core/lease.js';
import { Bounded } from './bounded.js';

const PROFILES_MAX = 20_000;
const SUFFIX_CHARACTERS = 26;
const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';
/** What a character of an id counts for, by its code. */
const VALUES = Uint8Array.from({ length: 128 }, (_, code) => Math.max(ALPHABET.indexOf(String.fromCharCode(code)), 0));

/** What many token leases have in common; stored once under a keyed hash of itself. */
type Profile = Omit<LeaseRecord, (typeof OWN_MEMBERS)[number]>;

const OWN_MEMBERS = [
  'id',
  'kind',
  'taskId',
  'path',
  'position',
  'generations',
  'state',
  'createdAtMs',
  'expiresAtMs',
  'revokedAtMs',
  'revokedReason',
] as const satisfies (keyof LeaseRecord)[];

interface WrittenProfile {
  profile: string;
  profileHash: string;
  /** What it says, in a copy that nobody else has. */
  members: Profile;
}

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
  readonly #written = new Bounded<WrittenProfile>(PROFILES_MAX);
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
    const { profile, profileHash } = this.#profileOf(lease);
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

  /** Mostly the one written last for this agent at this resource. Comparing with it is a fraction of writing and hashing it again. */
  #profileOf(lease: LeaseRecord): WrittenProfile {
    const place = `${lease.agent} ${lease.resource} ${lease.opener} ${lease.onBehalfOf}`;
    const before = this.#written.get(place);
    if (before && isProfileOf(before.members, lease)) return before;
    const profile = JSON.stringify(profileOf(lease));
    const profileHash = createHmac('sha256', this.#key).update(profile).digest('base64url').slice(0, 16);
    const written = { profile, profileHash, members: JSON.parse(profile) as Profile };
    this.#written.set(place, written);
    return written;
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
  const from = id.length - SUFFIX_CHARACTERS;
  let value = 0;
  for (let at = from; at < from + 10; at++) value = value * 32 + (VALUES[id.charCodeAt(at)] ?? 0);
  return value;
}

export function secondOf(leaseId: string): number {
  return Math.floor(timeOf(leaseId) / 1_000);
}

const OWN: ReadonlySet<string> = new Set(OWN_MEMBERS);

/** Everything that a lease has not of its own. Members in another order make another profile, which is no harm. */
function profileOf(lease: LeaseRecord): Profile {
  return Object.fromEntries(Object.entries(lease).filter(([name]) => !OWN.has(name))) as unknown as Profile;
}

/** Whether writing this lease's profile would write these members: every one of them, and no other. */
function isProfileOf(profile: Profile, lease: LeaseRecord): boolean {
  let left = Object.keys(profile).length;
  for (const name in lease) {
    const value = lease[name as keyof Profile];
    if (value === undefined || OWN.has(name)) continue;
    if (!isSame(value, profile[name as keyof Profile])) return false;
    left -= 1;
  }
  return left === 0;
}

/** Texts, and lists of texts. Of anything else it is not known. */
function isSame(value: unknown, other: unknown): boolean {
  if (!Array.isArray(value) || !Array.isArray(other)) return value === other;
  return value.length === other.length && value.every((each, at) => each === other[at]);
}
