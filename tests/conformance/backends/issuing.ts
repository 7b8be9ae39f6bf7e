import type { SecretData } from '../../../src/core/credential.js';
import { newId } from '../../../src/core/ids.js';
import type { Harness, SecretCase, World } from './harness.js';
import { everythingPrintable, failureOf, Lease, problemOf, seen, when } from './lease.js';

/** Names that were chosen to be something else: SQL, paths, templates, headers, controls. */
const HOSTILE = [
  `x'; DROP ROLE postgres; --`,
  '$1"; $$ COMMIT; $$',
  '../../../sys/seal',
  '{{identity.entity.name}} $(id) `id` %s %n',
  'a\r\nX-Evil: 1',
  '\u202egnirts \u0000',
  'x'.repeat(4_096),
];

export const secretsIn = (data: SecretData, { secretFields }: SecretCase): string[] =>
  secretFields.flatMap((field) => (data[field] === undefined ? [] : [String(data[field])]));

/** From the declaration to the credential in the agent's hand. */
export function issuingCases({ promises }: Harness, its: () => World): void {
  const isInstant = promises.includes('instant');
  const first = () => its().secrets[0] as SecretCase;

  it('declares how each of its secrets can be taken back', () => {
    for (const { settings, promised } of its().secrets) {
      const declared = its().backend.revocability(its().backend.secretSettings.parse(settings));
      expect(declared.kind).toBe(promised);
      const bound =
        declared.kind === 'expiry-only' ? declared.ttlMsMax : declared.kind === 'eventual' ? declared.withinMs : 1;
      expect(bound).toBeGreaterThan(0);
      expect(bound).toBeLessThan(7 * 86_400_000);
    }
  });

  it('finds nothing wrong with good secrets, and leaves nothing behind', async () => {
    const before = await its().count?.();
    for (const { name, settings } of its().secrets) {
      const { backend } = its();
      const parsed = backend.secretSettings.parse(settings);
      expect(await backend.check({ name, settings: parsed }, AbortSignal.timeout(15_000))).toEqual([]);
    }
    // What can only expire is left to that.
    if (its().secrets.every(({ promised }) => promised === 'instant')) expect(await its().count?.()).toBe(before);
  });

  it('refuses bad settings, and none that it has are accepted beside unknown ones', () => {
    const { backend, badSettings } = its();
    expect(Object.keys(badSettings).length).toBeGreaterThanOrEqual(4);
    const accepted = Object.entries(badSettings).filter(
      ([, settings]) => backend.secretSettings.safeParse(settings).success,
    );
    expect(accepted).toEqual([]);
    expect(backend.secretSettings.safeParse({ ...first().settings, no_such_setting: 1 }).success).toBe(false);
  });

  it('settings that were checked once are the same when checked again', () => {
    for (const { settings } of its().secrets) {
      const parsed = its().backend.secretSettings.parse(settings);
      expect(its().backend.secretSettings.parse(parsed)).toEqual(parsed);
    }
  });

  it('names before deeds: the plan is pure, stable, the same for every broker, and made of short texts', async () => {
    const another = await its().another();
    for (const { settings } of its().secrets) {
      const order = { leaseId: newId('lse', 'a', Date.now()), settings: its().backend.secretSettings.parse(settings) };
      const plan = its().backend.plan(order);
      expect(plan).not.toBeInstanceOf(Promise);
      expect(its().backend.plan(order)).toEqual(plan);
      expect(another.plan(order)).toEqual(plan);
      for (const value of Object.values(plan)) expect(typeof value === 'string' && value.length <= 256).toBe(true);
    }
    await another.close();
  });

  it('issues what works, with an end no later than ordered', async () => {
    for (const secret of its().secrets) {
      const lease = new Lease(its().backend, secret);
      const issued = await lease.issue();
      expect(await its().works(issued.data.expose(), secret)).toBe(true);
      expect(issued.expiresAtMs).toBeLessThanOrEqual(lease.expiresAtMs);
      expect(issued.expiresAtMs).toBeGreaterThan(Date.now() - 1_000);
      expect(secretsIn(issued.data.expose(), secret).every((value) => value.length >= 16)).toBe(true);
      await lease.retire();
    }
  });

  it('puts nothing secret into the handle, the warnings or what is printed of the answer', async () => {
    for (const secret of its().secrets) {
      const lease = new Lease(its().backend, secret);
      const issued = await lease.issue();
      const { handle, kept } = lease;
      const shown = JSON.stringify([handle, issued]) + everythingPrintable([handle, issued, kept]);
      for (const value of [...secretsIn(issued.data.expose(), secret), ...its().ours]) {
        expect(shown.includes(value)).toBe(false);
      }
      expect(secretsIn(issued.data.expose(), secret)).not.toEqual([]);
      await lease.retire();
    }
  });

  when(promises.some((promised) => promised !== 'rotate-only'))('two leases never share a credential', async () => {
    for (const secret of its().secrets.filter(({ promised }) => promised !== 'rotate-only')) {
      const leases = [new Lease(its().backend, secret), new Lease(its().backend, secret)];
      const [one, two] = await Promise.all(leases.map((lease) => lease.issue()));
      for (const field of secret.secretFields) {
        expect(one?.data.expose()[field]).not.toBe(two?.data.expose()[field]);
      }
      for (const lease of leases) await lease.retire();
    }
  });

  when(isInstant)('issuing twice for the same lease does no harm: whatever was given dies with it', async () => {
    for (const secret of its().secrets.filter(({ promised }) => promised === 'instant')) {
      const lease = new Lease(its().backend, secret);
      await lease.issue();
      await lease.issue().catch((error: unknown) => seen.push(error));
      await lease.retire();
      for (const data of lease.answers) expect(await its().works(data, secret)).toBe(false);
    }
  });

  when(isInstant)(
    'issuing twice at the same time for the same lease leaves nothing alive that revoking does not reach',
    async () => {
      for (const secret of its().secrets.filter(({ promised }) => promised === 'instant')) {
        const before = await its().count?.();
        const lease = new Lease(its().backend, secret);
        const another = await its().another();
        await Promise.allSettled([lease.issue(), lease.issue({ backend: another })]);
        await lease.retire();
        for (const data of lease.answers) expect(await its().works(data, secret)).toBe(false);
        expect(await its().count?.()).toBe(before);
        await another.close();
      }
    },
  );

  it('makes nothing past the intent’s deadline, and says so', async () => {
    for (const secret of its().secrets) {
      const before = await its().count?.();
      const lease = new Lease(its().backend, secret);
      const problem = await problemOf(() => lease.issue({ deadlineMs: Date.now() - 1 }));
      expect(problem.kind).toBe('too_late');
      expect(await its().count?.()).toBe(before);
      expect((await lease.retire()).state).toBe('gone');
    }
  });

  when(isInstant)('a lease that stops being pending meanwhile is left without anything alive', async () => {
    for (const secret of its().secrets.filter(({ promised }) => promised === 'instant')) {
      for (const notes of [1, 2, 3]) {
        const before = await its().count?.();
        const lease = new Lease(its().backend, secret);
        let left = notes;
        const onNote = () => {
          left -= 1;
          if (left === 0) lease.isPending = false;
        };
        await lease.issue({ onNote }).catch((error: unknown) => seen.push(error));
        await lease.retire();
        for (const data of lease.answers) expect(await its().works(data, secret)).toBe(false);
        expect(await its().count?.()).toBe(before);
      }
    }
  });

  it.each(HOSTILE.map((name, at) => [at, name]))(
    'hostile names change nothing but themselves (%i)',
    async (_, name) => {
      const secret = first();
      const bystander = new Lease(its().backend, secret);
      const held = await bystander.issue();
      const lease = new Lease(its().backend, secret);
      const issuing = lease.issue({ agent: name as string, taskId: name as string, onBehalfOf: name as string });
      const issued = await issuing.catch((error: unknown) => {
        seen.push(error);
        return undefined;
      });
      if (issued) expect(await its().works(issued.data.expose(), secret)).toBe(true);
      await lease.retire();
      expect(await its().works(held.data.expose(), secret)).toBe(true);
      await bystander.retire();
    },
  );

  it('an answer does not change the order it was given', async () => {
    const lease = new Lease(its().backend, first());
    const { settings } = lease;
    const copy = JSON.stringify(settings);
    Object.freeze(settings);
    await lease.issue();
    expect(JSON.stringify(settings)).toBe(copy);
    await lease.retire();
  });

  it('gives up at once when the caller already has', async () => {
    for (const secret of its().secrets) {
      const lease = new Lease(its().backend, secret);
      const aborted = AbortSignal.abort();
      const startMs = Date.now();
      await failureOf(() => lease.issue({ signal: aborted }));
      expect(Date.now() - startMs).toBeLessThan(1_000);
      await lease.retire();
    }
  });
}
