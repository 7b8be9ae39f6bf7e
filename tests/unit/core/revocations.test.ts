import fc from 'fast-check';
import type { TaskClaims } from '../../../src/core/claims.js';
import { isBefore } from '../../../src/core/position.js';
import { type FeedEntry, type Match, matches, RevocationTable } from '../../../src/core/revocations.js';

const AGENT = 'spiffe://dev.mayfly/agent/refunds';

function claimsWith({ mayfly, ...rest }: Partial<Omit<TaskClaims, 'mayfly'>> & { mayfly?: object } = {}): TaskClaims {
  return {
    iss: 'https://broker.example',
    sub: AGENT,
    aud: 'https://orders.example',
    client_id: AGENT,
    iat: 1_000,
    exp: 1_300,
    jti: 'lse_a_own',
    scope: 'orders.read orders.write',
    authorization_details: [],
    ...rest,
    mayfly: {
      cell: 'a',
      path: ['tsk_a_root', 'tsk_a_own', 'lse_a_parent'],
      pos: '5-100-0',
      sel: ['owner1', 'team1'],
      bundle: 'sha256:b',
      ...mayfly,
    },
  };
}

function entry(match: Match, pos = '5-200-0', untilMs: number | null = 10_000): FeedEntry {
  return { pos, untilMs, match };
}

function tableOf(...entries: FeedEntry[]): RevocationTable {
  const table = new RevocationTable();
  for (const one of entries) table.apply(one);
  return table;
}

const finds = (match: Match, claims = claimsWith(), kid = 'k1') =>
  tableOf(entry(match)).find(claims, kid) !== undefined;

describe('what an entry kills', () => {
  const killing: [string, Match][] = [
    ['its own task', { task: 'tsk_a_own' }],
    ['a task above', { task: 'tsk_a_root' }],
    ['its own lease', { lease: 'lse_a_own' }],
    ['a lease above', { lease: 'lse_a_parent' }],
    ['the key that signed it', { key: 'k1' }],
    ['its agent as client', { client: AGENT }],
    ['a whole-segment prefix of its agent', { prefix: 'spiffe://dev.mayfly/agent' }],
    ['the agent itself as a prefix', { prefix: AGENT }],
    ['the root of its trust domain as a prefix', { prefix: 'spiffe://dev.mayfly' }],
    ['its trust domain', { trust_domain: 'dev.mayfly' }],
    ['a tool of its scope', { tool: 'orders.write' }],
    ['its audience', { resource: 'https://orders.example' }],
    ['its bundle', { bundle: 'sha256:b' }],
    ['one hash', { sel: ['team1'] }],
    ['several hashes, all there', { sel: ['team1', 'owner1'] }],
    ['no hash at all: every token', { sel: [] }],
    ['every token', { all: true }],
    ['an empty match: every token', {}],
    ['several members that all hold', { task: 'tsk_a_own', tool: 'orders.read', resource: 'https://orders.example' }],
    ['a member nobody knows', { galaxy: 'milky-way' } as Match],
    ['a member nobody knows beside one that holds', { task: 'tsk_a_own', galaxy: 'milky-way' } as Match],
    ['a known member of a wrong type', { task: 5 } as unknown as Match],
    ['hashes of a wrong type', { sel: [5] } as unknown as Match],
    ['none that is not true', { none: 'maybe' } as unknown as Match],
  ];
  it.each(killing)('a token dies by %s', (_, match) => {
    expect(finds(match)).toBe(true);
  });

  const sparing: [string, Match][] = [
    ['another task', { task: 'tsk_a_other' }],
    ['another lease', { lease: 'lse_a_other' }],
    ['a task id in the lease member', { lease: 'tsk_a_other' }],
    ['another key', { key: 'k2' }],
    ['another agent', { client: `${AGENT}2` }],
    ['a prefix that cuts a segment', { prefix: 'spiffe://dev.mayfly/agent/refund' }],
    ['another trust domain', { trust_domain: 'dev.mayfl' }],
    ['a tool that only begins like one of its own', { tool: 'orders' }],
    ['another audience', { resource: 'https://orders.example/' }],
    ['another bundle', { bundle: 'sha256:c' }],
    ['two hashes of which one is missing', { sel: ['team1', 'team2'] }],
    ['an entry that only moves the fence', { none: true }],
    ['two members of which one does not hold', { task: 'tsk_a_own', tool: 'refunds.create' }],
    ['an unknown member beside one that does not hold', { task: 'tsk_a_other', galaxy: 'x' } as Match],
  ];
  it.each(sparing)('a token survives %s', (_, match) => {
    expect(finds(match)).toBe(false);
  });

  it('client, prefix and trust domain look at sub and at every nested actor', () => {
    const delegated = claimsWith({
      sub: 'spiffe://users.example/person/ann',
      act: { sub: 'spiffe://a.example/one', act: { sub: 'spiffe://b.example/two/x' } },
    });
    expect(finds({ client: 'spiffe://b.example/two/x' }, delegated)).toBe(true);
    expect(finds({ prefix: 'spiffe://b.example/two' }, delegated)).toBe(true);
    expect(finds({ trust_domain: 'a.example' }, delegated)).toBe(true);
    expect(finds({ trust_domain: 'users.example' }, delegated)).toBe(true);
  });
});

describe('positions', () => {
  it('a token decided at or after the entry survives it', () => {
    const table = tableOf(entry({ task: 'tsk_a_own' }, '5-200-0'));
    expect(table.find(claimsWith({ mayfly: { pos: '5-200-0' } }), 'k1')).toBeUndefined();
    expect(table.find(claimsWith({ mayfly: { pos: '5-200-1' } }), 'k1')).toBeUndefined();
  });

  it('positions are compared as integers, not as text', () => {
    const table = tableOf(entry({ task: 'tsk_a_own' }, '5-1000-10'));
    expect(table.find(claimsWith({ mayfly: { pos: '5-999-0' } }), 'k1')).toBeDefined();
    expect(table.find(claimsWith({ mayfly: { pos: '5-1000-9' } }), 'k1')).toBeDefined();
  });

  it('a key entry kills tokens of every position and stays for ever', () => {
    const table = tableOf(entry({ key: 'k1' }, '5-200-0', 10_000));
    table.expire(Number.MAX_SAFE_INTEGER);
    expect(table.find(claimsWith({ mayfly: { pos: '5-900-0' } }), 'k1')).toBeDefined();
  });

  it('a token of an earlier epoch is dead, also when the entry that said so is gone', () => {
    const table = tableOf(entry({ all: true }, '6-0-1', 10_000));
    table.expire(20_000);
    expect(table.size).toBe(0);
    expect(table.find(claimsWith({ mayfly: { pos: '5-999-0' } }), 'k1')).toBeDefined();
    expect(table.find(claimsWith({ mayfly: { pos: '6-1-0' } }), 'k1')).toBeUndefined();
  });

  it('a token whose position is no position is dead to every entry that matches it', () => {
    const table = tableOf(entry({ task: 'tsk_a_own' }));
    expect(table.find(claimsWith({ mayfly: { pos: '5-x-y' } }), 'k1')).toBeDefined();
  });

  it('the position is the latest of entries and heads, and never goes back', () => {
    const table = tableOf(entry({ none: true }, '5-300-0'), entry({ task: 't' }, '5-200-0'));
    expect(table.position).toBe('5-300-0');
    table.advance('5-400-0');
    table.advance('5-100-0');
    expect(table.position).toBe('5-400-0');
  });

  it('an entry without a position is not taken', () => {
    expect(() => tableOf(entry({ all: true }, 'soon'))).toThrow('position');
  });
});

describe('what the table keeps', () => {
  it('the same entry twice is one, and two different ones at one place are both kept', () => {
    const table = tableOf(entry({ task: 'x' }), entry({ task: 'x' }), entry({ task: 'tsk_a_own' }));
    expect(table.size).toBe(2);
    expect(table.find(claimsWith(), 'k1')).toBeDefined();
  });

  it('entries that kill nothing take no room', () => {
    expect(tableOf(entry({ none: true })).size).toBe(0);
  });

  it('an entry is forgotten when its end has passed, not before', () => {
    const table = tableOf(entry({ task: 'tsk_a_own' }, '5-200-0', 10_500));
    expect(table.expire(10_499)).toBe(0);
    expect(table.find(claimsWith(), 'k1')).toBeDefined();
    expect(table.expire(11_000)).toBe(1);
    expect(table.find(claimsWith(), 'k1')).toBeUndefined();
    expect(table.entries()).toEqual([]);
  });

  it('an entry without an end stays for ever', () => {
    const table = tableOf(entry({ task: 'tsk_a_own' }, '5-200-0', null));
    table.expire(Number.MAX_SAFE_INTEGER);
    expect(table.find(claimsWith(), 'k1')).toBeDefined();
  });

  it('a forgotten entry does not take its neighbours along', () => {
    const table = tableOf(
      entry({ tool: 'orders.read' }, '5-300-0', 5_000),
      entry({ tool: 'orders.read', resource: 'https://orders.example' }, '5-200-0', 50_000),
    );
    table.expire(6_000);
    expect(table.find(claimsWith(), 'k1')?.pos).toBe('5-200-0');
  });

  it('a snapshot lists the live entries, oldest first', () => {
    const table = tableOf(
      entry({ task: 'b' }, '5-300-0'),
      entry({ task: 'a' }, '5-200-0'),
      entry({ key: 'k' }, '5-1-0', null),
    );
    expect(table.entries().map((one) => one.pos)).toEqual(['5-1-0', '5-200-0', '5-300-0']);
    table.clear();
    expect([table.size, table.position]).toEqual([0, '0-0-0']);
  });

  it('ten thousand entries of one value are forgotten together quickly', () => {
    const table = new RevocationTable();
    for (let at = 0; at < 10_000; at++) table.apply(entry({ tool: 'orders.read' }, `5-${1_000 + at}-0`, 5_000));
    expect(table.expire(6_000)).toBe(10_000);
    expect(table.size).toBe(0);
  });
});

describe('the table against a plain scan', () => {
  const few = <T>(...values: T[]) => fc.constantFrom(...values);
  const names = few(AGENT, 'spiffe://dev.mayfly/agent', 'spiffe://b.example/two/x', 'https://people.example#ann');
  const position = fc.tuple(few(5, 6), fc.integer({ min: 0, max: 12 }), few(0, 1, 10)).map((parts) => parts.join('-'));
  const match = fc.record(
    {
      task: few('t1', 't2', 't3'),
      lease: few('l1', 'l2', 't1'),
      key: few('k1', 'k2'),
      sel: fc.array(few('s1', 's2', 's3'), { maxLength: 2 }),
      client: names,
      prefix: fc.oneof(names, few('spiffe://dev.mayfly', 'spiffe://b.example/two', 'https:')),
      trust_domain: few('dev.mayfly', 'b.example', ''),
      tool: few('a', 'b'),
      resource: few('https://r1', 'https://r2'),
      bundle: few('b1', 'b2'),
      all: few(true as const),
      none: few(true as const),
      galaxy: few('x'),
      wrong: few(1),
    },
    { requiredKeys: [] },
  );
  // Mostly one or two members, as real entries have.
  const sparse = fc
    .tuple(
      match,
      fc.subarray(
        Object.keys({
          task: 1,
          lease: 1,
          key: 1,
          sel: 1,
          client: 1,
          prefix: 1,
          trust_domain: 1,
          tool: 1,
          resource: 1,
          bundle: 1,
          all: 1,
          none: 1,
          galaxy: 1,
        }),
        { maxLength: 2 },
      ),
    )
    .map(
      ([full, members]) =>
        Object.fromEntries(Object.entries(full).filter(([member]) => members.includes(member))) as Match,
    );
  const untilMs = few<number | null>(1_000, 2_000, 3_000, null);
  const entries = fc.array(
    fc.record({ pos: position, untilMs, match: fc.oneof(sparse, match) as fc.Arbitrary<Match> }),
    { maxLength: 40 },
  );
  const token = fc
    .record({
      pos: position,
      path: fc.array(few('t1', 't2', 'l1'), { maxLength: 3 }),
      jti: few('l1', 'l3'),
      sel: fc.array(few('s1', 's2', 's3'), { maxLength: 3 }),
      client_id: names,
      sub: names,
      actor: fc.option(names, { nil: undefined }),
      scope: few('', 'a', 'a b'),
      aud: few('https://r1', 'https://r3'),
      bundle: few('b1', 'b3'),
    })
    .map(({ pos, path, sel, bundle, actor, ...rest }) =>
      claimsWith({ ...rest, ...(actor ? { act: { sub: actor } } : {}), mayfly: { pos, path, sel, bundle } }),
    );

  function scan(all: FeedEntry[], claims: TaskClaims, kid: string): FeedEntry[] {
    return all.filter(
      (one) => matches(one.match, claims, kid) && (one.match.key !== undefined || isBefore(claims.mayfly.pos, one.pos)),
    );
  }

  it('they always agree, in whatever order entries came and whatever was forgotten', () => {
    fc.assert(
      fc.property(entries, token, few('k1', 'k3'), few(0, 1_000, 2_500), (all, claims, kid, nowMs) => {
        const table = tableOf(...all);
        table.expire(nowMs);
        const live = all.filter((one) => one.untilMs === null || one.match.key !== undefined || one.untilMs > nowMs);
        const expected = scan(live, claims, kid);
        const epochOver = Math.max(0, ...all.map((one) => Number(one.pos[0]))) > Number(claims.mayfly.pos[0]);
        const found = table.find(claims, kid);
        expect(found !== undefined).toBe(expected.length > 0 || epochOver);
        if (found && !epochOver) expect(expected).toContainEqual(found);
      }),
      { numRuns: 2_000 },
    );
  });

  it('applying an older snapshot over it un-revokes nothing', () => {
    fc.assert(
      fc.property(entries, entries, token, (all, older, claims) => {
        const table = tableOf(...all);
        const before = table.find(claims, 'k1') !== undefined;
        for (const one of older) table.apply(one);
        expect(before && table.find(claims, 'k1') === undefined).toBe(false);
      }),
    );
  });
});
