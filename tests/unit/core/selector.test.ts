import fc from 'fast-check';
import type { Actor, TaskClaims } from '../../../src/core/claims.js';
import type { LeaseRecord } from '../../../src/core/lease.js';
import { matches } from '../../../src/core/revocations.js';
import {
  factsAbove,
  matchesOf,
  namesCredentialsOnly,
  ownFacts,
  type Selector,
  selectorHash,
  selects,
} from '../../../src/core/selector.js';

const A = 'spiffe://dev.mayfly/agent/a';
const B = 'spiffe://dev.mayfly/agent/b';
const C = 'spiffe://other.example/x/c';
const KEY = Buffer.alloc(32, 7);
const hash = selectorHash(KEY);

describe('the hash of a fact', () => {
  it('is short, keyed, and different for every kind and value', () => {
    expect(hash('team', 'payments')).toMatch(/^[A-Za-z0-9_-]{16}$/);
    const others = [
      hash('owner', 'payments'),
      hash('team', 'payment'),
      selectorHash(Buffer.alloc(32, 8))('team', 'payments'),
    ];
    expect(new Set([hash('team', 'payments'), ...others]).size).toBe(4);
  });

  it('does not run kind and value together', () => {
    expect(hash('team', 's')).not.toBe(hash('teams', ''));
  });
});

describe('a selector', () => {
  it('without a member selects nothing', () => {
    expect(selects({}, lease())).toBe(false);
  });

  it('that names credentials only writes no entry', () => {
    for (const selector of [{ secret: 'db' }, { backend: 'pg', agent: A }]) {
      expect(namesCredentialsOnly(selector)).toBe(true);
      expect(matchesOf(selector, hash)).toEqual([]);
    }
  });

  it('of an agent is written as client, as agent above, and as opener', () => {
    const found = matchesOf({ agent: A }, hash);
    expect(found).toContainEqual({ client: A });
    expect(found).toContainEqual({ sel: [hash('agent', A)] });
    expect(found).toContainEqual({ sel: [hash('opener', A)] });
  });

  it('never shows a fact in plain that the token does not show', () => {
    const text = JSON.stringify(matchesOf({ owner: 'ann@example.com', team: 'payments', opener: B, key: 'k' }, hash));
    for (const secret of ['ann', 'payments', B, '"k"']) expect(text).not.toContain(secret);
  });
});

/** What is in a token is what a selector can name: no token of a class may be missed, its own nor one below a lease of it. */
describe('the entries of a selector', () => {
  const names = fc.constantFrom(A, B, C);
  const few = <T>(...values: T[]) => fc.constantFrom(...values);
  const record = fc
    .record({
      agent: names,
      actors: fc.uniqueArray(names, { maxLength: 2 }),
      onBehalfOf: fc.option(few('https://people.example#ann', 'bob'), { nil: undefined }),
      opener: fc.option(names, { nil: undefined }),
      owner: few('o1', 'o2'),
      team: few('t1', 't2'),
      environment: few('prod', 'sandbox'),
      resource: few('https://r1', 'https://r2'),
      tools: fc.subarray(['read', 'write']),
      bundle: few('b1', 'b2'),
      identityKeyId: few('dev.mayfly#k1', 'other.example#k2'),
    })
    .map((members) => lease(defined(members)));
  const selector = fc
    .record(
      {
        lease: few('lse_0', 'lse_1'),
        task: few('tsk_root', 'tsk_own'),
        agent: names,
        prefix: few(A, 'spiffe://dev.mayfly/agent', 'spiffe://dev.mayfly', 'spiffe://other.example/x'),
        trust_domain: few('dev.mayfly', 'other.example'),
        owner: few('o1', 'o2'),
        team: few('t1', 't2'),
        environment: few('prod', 'sandbox'),
        opener: names,
        on_behalf_of: few('https://people.example#ann', 'bob'),
        tool: few('read', 'write'),
        resource: few('https://r1', 'https://r2'),
        bundle: few('b1', 'b2'),
        key: few('dev.mayfly#k1', 'other.example#k2'),
      },
      { requiredKeys: [] },
    )
    .chain((full) =>
      fc
        .subarray(Object.keys(full), { minLength: Math.min(1, Object.keys(full).length), maxLength: 3 })
        .map(
          (kept) => Object.fromEntries(Object.entries(full).filter(([member]) => kept.includes(member))) as Selector,
        ),
    );

  it('match the token of every lease that the selector selects', () => {
    let hits = 0;
    fc.assert(
      fc.property(record, selector, (own, selector) => {
        if (!selects(selector, own)) return;
        hits++;
        expect(killed(selector, tokenOf(own, []))).toBe(true);
      }),
      { numRuns: 3_000 },
    );
    expect(hits).toBeGreaterThan(100);
  });

  it('match every token below a lease that the selector selects, whatever the lower one shows', () => {
    let hits = 0;
    fc.assert(
      fc.property(record, record, selector, (upper, lower, selector) => {
        const parent = { ...upper, id: 'lse_0' };
        if (!selects(selector, parent)) return;
        hits++;
        expect(killed(selector, tokenOf({ ...lower, path: [...parent.path, parent.id] }, [parent]))).toBe(true);
      }),
      { numRuns: 5_000 },
    );
    expect(hits).toBeGreaterThan(100);
  });

  it('spare a token that shares no fact with the selector', () => {
    fc.assert(
      fc.property(record, (own) => {
        const strange: Selector = { agent: 'spiffe://far.example/z', tool: 'fly' };
        for (const member of ['agent', 'tool'] as const) {
          expect(killed({ [member]: strange[member] }, tokenOf(own, []))).toBe(false);
        }
        expect(killed({ owner: 'o9' }, tokenOf(own, []))).toBe(false);
        expect(killed({ prefix: 'spiffe://dev.mayfly/age' }, tokenOf(own, []))).toBe(false);
      }),
    );
  });
});

function lease(members: Partial<LeaseRecord> = {}): LeaseRecord {
  return {
    id: 'lse_1',
    kind: 'token',
    taskId: 'tsk_own',
    path: ['tsk_root', 'tsk_own'],
    agent: A,
    actors: [],
    tools: [],
    position: '1-1-1',
    generations: [1, 1],
    bundle: 'b1',
    binding: 'none',
    state: 'active',
    createdAtMs: 0,
    expiresAtMs: 1,
    ...members,
  } as LeaseRecord;
}

/** As minting writes it: plain claims of its own, hashes of the rest and of everything above. */
function tokenOf(own: LeaseRecord, above: LeaseRecord[]): TaskClaims {
  const facts = [...ownFacts(own), ...above.flatMap(factsAbove)];
  const chain = own.actors.reduce<Actor | undefined>((act, sub) => ({ sub, ...(act && { act }) }), undefined);
  return {
    iss: 'https://broker.example',
    sub: own.actors[0] ?? own.agent,
    aud: own.resource ?? '',
    client_id: own.agent,
    iat: 1,
    exp: 2,
    jti: own.id,
    scope: own.tools.join(' '),
    authorization_details: [],
    ...(chain && { act: chain }),
    mayfly: {
      cell: 'a',
      path: own.path,
      pos: own.position,
      sel: [...new Set(facts.map(([kind, value]) => hash(kind, value)))],
      bundle: own.bundle,
    },
  };
}

function killed(selector: Selector, claims: TaskClaims): boolean {
  return matchesOf(selector, hash).some((match) => matches(match, claims, 'kid'));
}

function defined<T extends object>(members: T): Partial<LeaseRecord> {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
}
