import { BackendProblem } from '../../../src/plugins/backends/contract.js';
import type { Harness, SecretCase, World } from './harness.js';
import { eventually, Lease, problemOf } from './lease.js';

const GIVEN_MS = 1_500;
/** What an abort may take to be noticed on a busy machine. */
const SLACK_MS = 1_500;
const UP_AGAIN_MS = 30_000;

type Call = [name: string, run: (signal: AbortSignal) => Promise<unknown>];

/** Every call while the backend is not there. */
export function failingCases({ canHang }: Harness, its: () => World): void {
  const calls = (held: Lease, secret: SecretCase): Call[] => {
    const { backend } = its();
    const order: [string, (signal: AbortSignal) => Promise<unknown>][] = [
      ['issue', (signal) => new Lease(backend, secret).issue({ signal, deadlineMs: Date.now() + 10_000 })],
      ['confirm', (signal) => held.confirm(signal)],
      ['check', (signal) => checkThrows(its(), secret, signal)],
    ];
    // A kind that takes nothing back has nobody to call.
    if (secret.promised === 'instant') order.push(['revoke', (signal) => held.revoke(signal)]);
    const { renew, find } = backend;
    if (renew && secret.promised === 'instant') {
      order.push(['renew', (signal) => renew.call(backend, held.credential(), Date.now() + 60_000, signal)]);
    }
    if (find) {
      order.push([
        'find',
        async (signal) => {
          for await (const _ of find.call(backend, signal));
        },
      ]);
    }
    return order;
  };

  describe.each(canHang ? (['refuses', 'hangs'] as const) : (['refuses'] as const))('while the backend %s', (how) => {
    it('each call gives a BackendProblem in time, and all is well again when it is back', async () => {
      const secret = (its().secrets.find(({ promised }) => promised === 'instant') ?? its().secrets[0]) as SecretCase;
      const held = new Lease(its().backend, secret);
      const { data } = await held.issue();
      const problems: Record<string, BackendProblem> = {};
      await its().down(how);
      try {
        expect(its().backend.plan({ leaseId: held.id, settings: held.settings })).toBeDefined();
        for (const [name, run] of calls(held, secret)) {
          const startMs = Date.now();
          problems[name] = await problemOf(() => run(AbortSignal.timeout(GIVEN_MS)));
          expect(`${name}: ${Date.now() - startMs < GIVEN_MS + SLACK_MS}`).toBe(`${name}: true`);
        }
      } finally {
        await its().up();
      }
      const kinds = Object.entries(problems).map(([name, { kind }]) => [name, kind]);
      const expected = [
        'unreachable',
        'timeout',
        'sealed',
        ...(secret.promised === 'rotate-only' ? ['misconfigured'] : []),
      ];
      expect(kinds.filter(([, kind]) => !expected.includes(kind as string))).toEqual([]);
      for (const problem of Object.values(problems)) {
        for (const value of secret.secretFields.map((field) => String(data.expose()[field]))) {
          expect(problem.message.includes(value)).toBe(false);
        }
      }
      await eventually('up again', () => worksAgain(its(), secret), UP_AGAIN_MS);
      if (secret.promised === 'instant') {
        expect((await held.retire()).state).toBe('gone');
        expect(await its().works(data.expose(), secret)).toBe(false);
      }
    }, 90_000);
  });

  if (!canHang) return;

  it('a hanging call ends when its caller gives up, not later', async () => {
    const secret = its().secrets[0] as SecretCase;
    const held = new Lease(its().backend, secret);
    await held.issue();
    await its().down('hangs');
    try {
      for (const [name, run] of calls(held, secret)) {
        const caller = new AbortController();
        const running = problemOf(() => run(caller.signal));
        const startMs = Date.now();
        setTimeout(() => caller.abort(), 200);
        const problem = await running;
        expect(`${name}: ${problem.kind}`).toBe(`${name}: timeout`);
        expect(Date.now() - startMs).toBeLessThan(200 + SLACK_MS);
      }
    } finally {
      await its().up();
    }
    await eventually('up again', () => worksAgain(its(), secret), UP_AGAIN_MS);
    await held.retire();
  }, 90_000);
}

/** `check` says what is wrong, or throws when nothing can be known: while the backend is down both keep the secret closed. */
async function checkThrows({ backend }: World, secret: SecretCase, signal: AbortSignal): Promise<void> {
  const settings = backend.secretSettings.parse(secret.settings);
  const found = await backend.check({ name: secret.name, settings }, signal);
  if (found.length > 0) throw new BackendProblem(signal.aborted ? 'timeout' : 'unreachable', found.join('; '));
}

async function worksAgain(world: World, secret: SecretCase): Promise<true | undefined> {
  const lease = new Lease(world.backend, secret);
  try {
    const { data } = await lease.issue();
    const isWorking = await world.works(data.expose(), secret);
    await lease.retire();
    return isWorking ? true : undefined;
  } catch {
    return undefined;
  }
}
