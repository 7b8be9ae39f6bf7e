import { inspect } from 'node:util';
import { jest } from '@jest/globals';
import { Denied, Revoked, Unavailable } from '../../../src/client/mayfly-error.js';
import { TaskSecret } from '../../../src/client/task-secret.js';
import type { SecretReply } from '../../../src/client/wire.js';

const VALUE = 'canary-value';
const REPLY: SecretReply = {
  request_id: 'req_a_1',
  lease_id: 'lse_a_1',
  lease_duration: 60,
  renewable: true,
  data: { username: 'mayfly', password: VALUE },
  task: 'tsk_a_1',
  revocability: { kind: 'instant' },
};
const renewed = (seconds: number, renewable = true) => ({
  request_id: 'req_a_2',
  lease_id: 'lse_a_1',
  lease_duration: seconds,
  renewable,
});
const problem = (code: 'unavailable' | 'denied' | 'task_over') => ({ code, status: 0, message: code });

const renew = jest.fn<(lease: string) => Promise<ReturnType<typeof renewed>>>();
const revoke = jest.fn<(lease: string) => Promise<unknown>>();
let task: AbortController;

beforeEach(() => {
  jest.useFakeTimers();
  renew.mockReset().mockResolvedValue(renewed(60));
  revoke.mockReset().mockResolvedValue({});
  task = new AbortController();
});
afterEach(() => jest.useRealTimers());

function secret(reply: Partial<SecretReply> = {}): TaskSecret {
  const more = { calls: { renew, revoke }, clock: { now: () => Date.now() }, taskSignal: task.signal };
  return new TaskSecret('orders-db', { ...REPLY, ...reply }, Date.now(), more);
}
const pass = (seconds: number) => jest.advanceTimersByTimeAsync(seconds * 1_000);

describe('a secret', () => {
  it('prints as nothing, however it is printed', () => {
    const held = secret();
    const printed = [inspect(held, { depth: 9, showHidden: true }), JSON.stringify(held), String(held), `${held}`];
    expect(printed.join('\n')).not.toContain(VALUE);
    expect(held.expose()).toEqual({ username: 'mayfly', password: VALUE });
  });

  it('is renewed at half of its life, again and again', async () => {
    const held = secret();
    await pass(29);
    expect(renew).not.toHaveBeenCalled();
    await pass(1);
    expect(renew).toHaveBeenCalledTimes(1);
    await pass(30);
    expect(renew).toHaveBeenCalledTimes(2);
    expect(held.signal.aborted).toBe(false);
  });

  it('that cannot be renewed is over when its life has passed, and says so', async () => {
    const held = secret({ renewable: false });
    await pass(59);
    expect(held.signal.aborted).toBe(false);
    await pass(1);
    expect(renew).not.toHaveBeenCalled();
    expect(held.signal.reason).toMatchObject({ name: 'Expired' });
    expect(() => held.expose()).toThrow('has passed');
  });

  it('lives out what was given last when policy refuses a renewal', async () => {
    renew.mockRejectedValue(new Denied(problem('denied')));
    const held = secret();
    await pass(59);
    expect(renew).toHaveBeenCalledTimes(1);
    expect(held.signal.aborted).toBe(false);
    await pass(1);
    expect(held.signal.reason).toMatchObject({ name: 'Expired' });
  });

  it('is asked for again during an outage, and lives on when the broker is back', async () => {
    renew.mockRejectedValue(new Unavailable(problem('unavailable')));
    const held = secret();
    await pass(50);
    expect(renew.mock.calls.length).toBeGreaterThan(1);
    renew.mockResolvedValue(renewed(60));
    await pass(20);
    expect(held.signal.aborted).toBe(false);
  });

  it('does not outlive an outage that is longer than its life', async () => {
    renew.mockRejectedValue(new Unavailable(problem('unavailable')));
    const held = secret();
    await pass(60);
    expect(held.signal.reason).toMatchObject({ name: 'Expired' });
    expect(renew.mock.calls.length).toBeLessThan(40);
  });

  it('is dead at once when a renewal says that it was revoked', async () => {
    renew.mockRejectedValue(new Revoked(problem('task_over')));
    const held = secret();
    await pass(30);
    expect(held.signal.reason).toMatchObject({ name: 'Revoked' });
    expect(() => held.expose()).toThrow();
  });

  it('is dead when its task is, with the reason of the task, and asks for nothing more', async () => {
    const held = secret();
    task.abort(new Revoked({ code: 'task_over', status: 0, message: 'The task is completed.' }));
    expect(held.signal.reason).toMatchObject({ message: 'The task is completed.' });
    await pass(600);
    expect(renew).not.toHaveBeenCalled();
  });

  it('for a task that is over already is dead from the start', () => {
    task.abort(new Error('over'));
    expect(secret().signal.aborted).toBe(true);
  });

  it('is given back at the end of its block, once', async () => {
    const held = secret();
    await held[Symbol.asyncDispose]();
    await held[Symbol.asyncDispose]();
    expect(revoke.mock.calls).toEqual([['lse_a_1']]);
    expect(held.signal.aborted).toBe(true);
    await pass(600);
    expect(renew).not.toHaveBeenCalled();
  });

  it('that could not be given back is not reported as dead', async () => {
    revoke.mockRejectedValue(new Unavailable(problem('unavailable')));
    const held = secret();
    await expect(held.revoke()).rejects.toBeInstanceOf(Unavailable);
    expect(held.signal.aborted).toBe(false);
  });

  it('whose life is longer than a timer can wait is renewed at its half all the same', async () => {
    renew.mockResolvedValue(renewed(80 * 86_400));
    secret({ lease_duration: 80 * 86_400 });
    await pass(39 * 86_400);
    expect(renew).not.toHaveBeenCalled();
    await pass(2 * 86_400);
    expect(renew).toHaveBeenCalledTimes(1);
  });
});
