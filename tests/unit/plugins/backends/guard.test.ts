import type { Backend, Credential } from '../../../../src/plugins/backends/contract.js';
import { guardBackend } from '../../../../src/plugins/backends/guard.js';
import { FakeBackend } from '../../../fakes/backend.js';
import { VirtualClock } from '../../../fakes/virtual-clock.js';

const credential: Credential = { leaseId: 'lse_a_01kb0000000000000000000000', handle: {}, expiresAtMs: 0 };
const signal = () => new AbortController().signal;

async function problemOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return 'none';
  } catch (error) {
    return (error as { kind?: string }).kind ?? String(error);
  }
}

describe('the guard of a backend', () => {
  let clock: VirtualClock;
  let backend: FakeBackend;
  let guarded: Backend;
  const events: { event: string }[] = [];

  const guard = (bounds: Partial<Backend['bounds']> = {}) => {
    clock = new VirtualClock();
    events.length = 0;
    backend = new FakeBackend(clock, 'pg', bounds);
    guarded = guardBackend(backend, { clock, observe: (event) => events.push(event) });
  };
  beforeEach(() => guard());

  const fail = async (times: number, kind: 'unreachable' | 'failed' | 'forbidden' = 'unreachable') => {
    backend.faults.revoke = Array.from({ length: times }, () => ({ kind }));
    for (let at = 0; at < times; at++) await problemOf(guarded.revoke(credential, signal()));
  };

  it('five silences in a row open its breaker: then nobody asks, and nothing is said to have been done', async () => {
    await fail(4);
    expect(guarded.guard).toMatchObject({ state: 'closed', admits: true });
    await fail(1);
    expect(guarded.guard).toMatchObject({ state: 'open', admits: false, problem: 'revoke failed' });
    backend.calls.length = 0;
    await expect(guarded.confirm(credential, signal())).rejects.toMatchObject({ kind: 'unreachable', isSure: true });
    expect(backend.calls).toEqual([]);
  });

  it('an answer is no silence, whatever it says, and counts from nothing again', async () => {
    await fail(4);
    await fail(1, 'forbidden');
    await fail(4);
    expect(guarded.guard?.state).toBe('closed');
  });

  it('a second later one call at a time is let through, and the first answer closes it and is told', async () => {
    await fail(5);
    let told = 0;
    guarded.guard?.onBack(() => {
      told += 1;
    });
    clock.advance(1_000);
    backend.faults.confirm = [{ kind: 'unreachable' }];
    await problemOf(guarded.confirm(credential, signal()));
    expect([guarded.guard?.state, guarded.guard?.admits, told]).toEqual(['open', false, 0]);
    clock.advance(1_000);
    backend.faults.confirm = [{ hangs: true }];
    const trial = guarded.confirm(credential, AbortSignal.timeout(50));
    await new Promise(setImmediate);
    expect(await problemOf(guarded.revoke(credential, signal()))).toBe('unreachable');
    await problemOf(trial);
    clock.advance(1_000);
    expect(await problemOf(guarded.confirm(credential, signal()))).toBe('none');
    expect([guarded.guard?.state, told]).toEqual(['closed', 1]);
    expect(events.filter(({ event }) => event === 'backend.breaker')).toMatchObject([
      { state: 'open' },
      { state: 'closed' },
    ]);
  });

  it('a call that does not heed its signal is left behind, as a time-out', async () => {
    guard({ revokeTimeoutMs: 30 });
    backend.revoke = () => new Promise(() => {});
    expect(await problemOf(guarded.revoke(credential, signal()))).toBe('timeout');
  });

  it('no more calls at a time than its bounds say, and who waits too long is told that it is busy', async () => {
    guard({ revocationsMax: 2, revokeTimeoutMs: 200 });
    let inside = 0;
    let most = 0;
    const open: (() => void)[] = [];
    backend.revoke = async () => {
      inside += 1;
      most = Math.max(most, inside);
      await new Promise<void>((resolve) => open.push(resolve));
      inside -= 1;
    };
    const calls = [1, 2, 3, 4].map(() => guarded.revoke(credential, signal()));
    await new Promise(setImmediate);
    expect([inside, most]).toEqual([2, 2]);
    for (let at = 0; at < 4; at++) {
      open.shift()?.();
      await new Promise(setImmediate);
      await new Promise(setImmediate);
    }
    await Promise.all(calls);
    expect(most).toBe(2);
    const stuck = [1, 2].map(() => guarded.revoke(credential, signal()));
    expect(await problemOf(guarded.revoke(credential, AbortSignal.timeout(20)))).toBe('busy');
    for (const go of open) go();
    await Promise.all(stuck);
  });

  it('issues do not wait behind revocations', async () => {
    guard({ revocationsMax: 1 });
    backend.revoke = () => new Promise(() => {});
    void guarded.revoke(credential, signal()).catch(() => {});
    const order = {
      ...credential,
      settings: {},
      expiresAtMs: clock.now() + 60_000,
      deadlineMs: clock.now() + 2_000,
      agent: 'a',
      taskId: 't',
      note: async () => {},
      signal: signal(),
    };
    expect(await problemOf(guarded.issue(order))).toBe('none');
  });

  it('what a kind lets out by mistake is told in words of ours, for it may hold anything', async () => {
    backend.confirm = async () => {
      throw new Error('postgres://admin:canary-2718@db');
    };
    await expect(guarded.confirm(credential, signal())).rejects.toMatchObject({
      kind: 'failed',
      message: expect.not.stringContaining('canary'),
    });
  });
});
