import { createHmac } from 'node:crypto';
import type { LeaseRecord } from './lease.js';
import type { Match } from './revocations.js';
import { hasPrefix, parseSpiffeId, prefixesOf, trustDomainOf } from './spiffe-id.js';

/**
 * A class of leases. Several members together mean all of them. What a selector names is in the token, so that one feed entry
 * revokes any number of them; `secret` and `backend` name credentials only.
 */
export interface Selector {
  lease?: string;
  task?: string;
  agent?: string;
  prefix?: string;
  trust_domain?: string;
  owner?: string;
  team?: string;
  environment?: string;
  opener?: string;
  on_behalf_of?: string;
  tool?: string;
  resource?: string;
  bundle?: string;
  /** A key that signed an identity (core/identity.ts), as `doctor` lists them. */
  key?: string;
  secret?: string;
  backend?: string;
}

export const SELECTOR_MEMBERS = [
  'lease',
  'task',
  'agent',
  'prefix',
  'trust_domain',
  'owner',
  'team',
  'environment',
  'opener',
  'on_behalf_of',
  'tool',
  'resource',
  'bundle',
  'key',
  'secret',
  'backend',
] as const satisfies readonly (keyof Selector)[];

/** The short keyed hash that stands for one fact in a token: the first 12 bytes of HMAC-SHA-256(cell key, kind ‖ 0 ‖ value). */
export type SelectorHash = (kind: string, value: string) => string;

export function selectorHash(cellKey: Uint8Array): SelectorHash {
  // The same few owners, teams and openers are in every token of a task: their hashes are kept, a bounded number of them by kind.
  const known = new Map<string, Map<string, string>>();
  return (kind, value) => {
    const ofKind = known.get(kind) ?? new Map<string, string>();
    const kept = ofKind.get(value);
    if (kept !== undefined) return kept;
    const fact = `${kind}\0${value}`;
    const hash = createHmac('sha256', cellKey).update(fact).digest().subarray(0, 12).toString('base64url');
    if (ofKind.size >= HASHES_KEPT_MAX) ofKind.clear();
    known.set(kind, ofKind.set(value, hash));
    return hash;
  };
}

const HASHES_KEPT_MAX = 10_000;

/** What is hashed into `sel` of a lease's own token: the facts that its plain claims do not show. */
export function ownFacts(lease: LeaseRecord): [string, string][] {
  const facts: [string, string | undefined][] = [
    ['owner', lease.owner],
    ['team', lease.team],
    ['environment', lease.environment],
    ['opener', lease.opener],
    ['on_behalf_of', lease.onBehalfOf],
    ['key', lease.identityKeyId],
  ];
  return facts.filter((fact): fact is [string, string] => fact[1] !== undefined);
}

/** What is hashed into `sel` for every lease above: its own facts and those that its plain claims would have shown. */
export function factsAbove(lease: LeaseRecord): [string, string][] {
  const facts: [string, string][] = [...ownFacts(lease), ['bundle', lease.bundle]];
  for (const name of [lease.agent, ...lease.actors]) {
    facts.push(['agent', name]);
    const id = parseSpiffeId(name);
    if (!id) continue;
    const domain = trustDomainOf(id);
    // A prefix may be as short as the trust domain itself.
    facts.push(['trust_domain', domain], ['prefix', `spiffe://${domain}`]);
    for (const prefix of prefixesOf(id)) facts.push(['prefix', prefix]);
  }
  for (const tool of lease.tools) facts.push(['tool', tool]);
  if (lease.resource) facts.push(['resource', lease.resource]);
  return facts;
}

/** Whether the record itself is of the class: the precise test that enumeration, preview and locks on credentials use. */
export function selects(selector: Selector, lease: LeaseRecord): boolean {
  const names = [lease.agent, ...lease.actors];
  const tests: { [Member in keyof Required<Selector>]: (value: string) => boolean } = {
    lease: (id) => lease.id === id || lease.path.includes(id),
    task: (id) => lease.path.includes(id),
    agent: (id) => names.includes(id) || lease.opener === id,
    prefix: (prefix) => names.some((name) => hasPrefix(name, prefix)),
    trust_domain: (domain) => names.some((name) => name.startsWith(`spiffe://${domain}/`)),
    owner: (owner) => lease.owner === owner,
    team: (team) => lease.team === team,
    environment: (environment) => lease.environment === environment,
    opener: (opener) => lease.opener === opener,
    on_behalf_of: (name) => lease.onBehalfOf === name,
    tool: (tool) => lease.tools.includes(tool),
    resource: (resource) => lease.resource === resource,
    bundle: (digest) => lease.bundle === digest,
    key: (keyId) => lease.identityKeyId === keyId,
    secret: (name) => lease.secret === name,
    backend: (name) => lease.backend === name,
  };
  const members = SELECTOR_MEMBERS.filter((member) => selector[member] !== undefined);
  return members.length > 0 && members.every((member) => tests[member](selector[member] as string));
}

/** True for selectors that name credentials only: no token carries the fact, and no feed entry is written. */
export function namesCredentialsOnly(selector: Selector): boolean {
  return selector.secret !== undefined || selector.backend !== undefined;
}

/**
 * The feed matches that kill every token of the class: what the token's plain claims show, what a lease above it was, and
 * (an agent) what it opened. Each of the returned matches is an entry of its own; none may miss a token of the class.
 */
export function matchesOf(selector: Selector, hash: SelectorHash): Match[] {
  if (namesCredentialsOnly(selector)) return [];
  const plain: Match = {};
  const above: Match = {};
  const own: string[] = [];
  const sel: string[] = [];
  for (const member of SELECTOR_MEMBERS) {
    const value = selector[member];
    if (value === undefined) continue;
    if (member === 'lease' || member === 'task') {
      plain[member] = value;
      above[member] = value;
    } else if (member === 'agent') {
      plain.client = value;
      sel.push(hash('agent', value));
    } else if (
      member === 'prefix' ||
      member === 'trust_domain' ||
      member === 'tool' ||
      member === 'resource' ||
      member === 'bundle'
    ) {
      plain[member] = value;
      sel.push(hash(member, value));
    } else {
      own.push(hash(member, value));
      sel.push(hash(member, value));
    }
  }
  const matches: Match[] = [own.length > 0 ? { ...plain, sel: own } : plain];
  const { prefix, trust_domain: domain, tool, resource, bundle } = selector;
  const isPlainToo = (prefix ?? domain ?? tool ?? resource ?? bundle) !== undefined;
  if (isPlainToo || selector.agent !== undefined) matches.push({ ...above, sel });
  if (selector.agent !== undefined) {
    // What the agent opened, by the token's own facts and by those of a lease above it.
    const opened = hash('opener', selector.agent);
    const acted = hash('agent', selector.agent);
    const { client: _, ...rest } = plain;
    matches.push({ ...rest, sel: [...own, opened] });
    if (isPlainToo) matches.push({ ...above, sel: sel.map((one) => (one === acted ? opened : one)) });
  }
  return matches;
}
