import fc from 'fast-check';
import { newId } from '../../../src/core/ids.js';
import type { LeaseRecord } from '../../../src/core/lease.js';
import { fieldOf, secondOf, TokenRecords, timeOf } from '../../../src/state/token-record.js';

const NOW_MS = 1_795_000_000_123;
const task = newId('tsk', 'a', NOW_MS);

function lease(more: Partial<LeaseRecord> = {}): LeaseRecord {
  return {
    id: newId('lse', 'a', NOW_MS),
    kind: 'token',
    taskId: task,
    path: [task],
    agent: 'spiffe://dev.mayfly/agent/refunds',
    actors: [],
    tools: ['orders.read'],
    position: '1795000000-1795000000100-2',
    generations: [1],
    bundle: 'sha256:one',
    binding: 'none',
    state: 'active',
    createdAtMs: NOW_MS,
    expiresAtMs: NOW_MS + 300_000,
    ...more,
  };
}

function roundTrip(record: LeaseRecord): LeaseRecord {
  const writer = new TokenRecords('a', new Uint8Array(32));
  const reader = new TokenRecords('a', new Uint8Array(32));
  const row = writer.encode(record);
  expect(reader.knows(reader.profileHashOf(row.value))).toBe(false);
  reader.learn(reader.profileHashOf(row.value), row.profile);
  return reader.decode(record.id, row.value);
}

describe('the record of a token lease', () => {
  it('comes back as it went, whatever is in it', () => {
    const text = fc.string({ maxLength: 30 });
    fc.assert(
      fc.property(
        fc.record(
          {
            onBehalfOf: text,
            opener: text,
            owner: text,
            team: text,
            environment: text,
            resource: text,
            keyId: text,
            identityKeyId: text,
            proof: text,
            tools: fc.array(text, { maxLength: 3 }),
            actors: fc.array(text, { maxLength: 3 }),
            generations: fc.array(fc.nat(), { minLength: 1, maxLength: 5 }),
            createdAtMs: fc.nat(),
          },
          { requiredKeys: [] },
        ),
        (more) => {
          const record = lease(more as Partial<LeaseRecord>);
          expect(roundTrip(record)).toEqual(record);
        },
      ),
    );
  });

  it('keeps a path of tasks and leases, and finds the task in it', () => {
    const child = newId('tsk', 'a', NOW_MS);
    const parent = newId('lse', 'a', NOW_MS);
    const record = lease({ path: [task, child, parent], taskId: child, generations: [3, 1] });
    expect(roundTrip(record)).toEqual(record);
  });

  it('keeps one without a task', () => {
    const { taskId: _, ...record } = lease({ path: [], generations: [] });
    expect(roundTrip(record)).toEqual(record);
  });

  it('keeps ids of another cell', () => {
    const foreign = newId('tsk', 'bb', NOW_MS);
    const record = lease({ path: [foreign], taskId: foreign });
    expect(roundTrip(record)).toEqual(record);
  });

  it('shares the profile of everything an agent got under the same rules, and nothing else', () => {
    const records = new TokenRecords('a', new Uint8Array(32));
    const hash = (more: Partial<LeaseRecord>) => records.encode(lease(more)).profileHash;
    const same = hash({});
    expect(hash({ position: '1-2-3', expiresAtMs: NOW_MS + 1, generations: [7] })).toBe(same);
    for (const more of [{ agent: 'x' }, { tools: [] }, { bundle: 'y' }, { binding: 'dpop' as const }, { team: 'z' }]) {
      expect(hash(more)).not.toBe(same);
    }
  });

  it('has the profile that a broker which wrote none before would give it', () => {
    const value = fc.constantFrom('a', 'b', undefined);
    const list = fc.constantFrom<string[]>([], ['a'], ['b'], ['a', 'b']);
    const members = { owner: value, team: value, keyId: value, resource: value, onBehalfOf: value };
    const some = fc.record({ ...members, tools: list, actors: list, bundle: fc.constantFrom('a', 'b') });
    const records = new TokenRecords('a', new Uint8Array(32));
    fc.assert(
      fc.property(some, (more) => {
        const { profile, profileHash } = records.encode(lease(more as Partial<LeaseRecord>));
        const anew = new TokenRecords('a', new Uint8Array(32)).encode(lease(more as Partial<LeaseRecord>));
        expect([JSON.parse(profile), profileHash]).toEqual([JSON.parse(anew.profile), anew.profileHash]);
      }),
      { numRuns: 1_000 },
    );
  });

  it('is compared with what was written, not with what became of the lease it was written for', () => {
    const records = new TokenRecords('a', new Uint8Array(32));
    const first = lease({ tools: ['orders.read'] });
    const { profileHash } = records.encode(first);
    first.tools.push('orders.refund');
    expect(records.encode(first).profileHash).not.toBe(profileHash);
  });

  it('hashes profiles under the cell’s own key', () => {
    const other = new TokenRecords('a', new Uint8Array(32).fill(1));
    expect(other.encode(lease()).profileHash).not.toBe(
      new TokenRecords('a', new Uint8Array(32)).encode(lease()).profileHash,
    );
  });

  it('is small: what is its own takes less than 110 bytes', () => {
    expect(new TokenRecords('a', new Uint8Array(32)).encode(lease()).value.length).toBeLessThan(110);
  });

  it('is not read before its profile is known', () => {
    const { value } = new TokenRecords('a', new Uint8Array(32)).encode(lease());
    expect(() => new TokenRecords('a', new Uint8Array(32)).decode(lease().id, value)).toThrow(/profile/);
  });
});

describe('the time in an id', () => {
  it('is the millisecond it was made in', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 48 - 1 }), (ms) => {
        const id = newId('lse', 'a', ms);
        expect(timeOf(id)).toBe(ms);
        expect(timeOf(fieldOf(id))).toBe(ms);
        expect(secondOf(id)).toBe(Math.floor(ms / 1_000));
      }),
    );
  });
});
