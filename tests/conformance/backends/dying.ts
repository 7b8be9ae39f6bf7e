import { newId } from '../../../src/core/ids.js';
import type { Backend, Found } from '../../../src/plugins/backends/contract.js';
import type { Harness, Promised, SecretCase, World } from './harness.js';
import { eventually, failureOf, Lease, seen, when } from './lease.js';

/** How long "right after" may be, for a real thing on a busy machine. */
const END_MS = 20_000;

/** From the end of the task to the proof. */
export function dyingCases({ promises, abilities }: Harness, its: () => World): void {
  const those = (...promised: Promised[]) => its().secrets.filter((secret) => promised.includes(secret.promised));

  it('what was never issued can be revoked, and is gone', async () => {
    for (const secret of its().secrets) {
      const lease = new Lease(its().backend, secret);
      await lease.revoke();
      expect((await lease.confirm()).state).toBe('gone');
    }
  });

  it('a handle that says nothing is revoked without touching anything else', async () => {
    const secret = its().secrets[0] as SecretCase;
    const bystander = new Lease(its().backend, secret);
    const held = await bystander.issue();
    const nothing = { leaseId: newId('lse', 'a', Date.now()), handle: {}, expiresAtMs: Date.now() };
    await its()
      .backend.revoke(nothing, AbortSignal.timeout(5_000))
      .catch((error: unknown) => seen.push(error));
    expect(await its().works(held.data.expose(), secret)).toBe(true);
    await bystander.retire();
  });

  when(promises.includes('instant'))(
    'instant: there before, refused by the real thing the moment it is confirmed',
    async () => {
      for (const secret of those('instant')) {
        const lease = new Lease(its().backend, secret);
        const { data } = await lease.issue();
        expect((await lease.confirm()).state).toBe('there');
        expect(await its().works(data.expose(), secret)).toBe(true);
        await lease.retire();
        expect(await its().works(data.expose(), secret)).toBe(false);
        expect((await lease.confirm()).state).toBe('gone');
      }
    },
  );

  when(promises.includes('eventual'))('eventual: refused within the time that was declared', async () => {
    for (const secret of those('eventual')) {
      const lease = new Lease(its().backend, secret);
      const { data } = await lease.issue();
      const declared = its().backend.revocability(lease.settings) as { kind: 'eventual'; withinMs: number };
      await lease.retire();
      const isRefused = async () => ((await its().works(data.expose(), secret)) ? undefined : true);
      await eventually('refused', isRefused, declared.withinMs);
    }
  });

  when(promises.includes('expiry-only'))(
    'expiry-only: never called gone while it works, says until when it may, and is refused after that',
    async () => {
      for (const secret of those('expiry-only')) {
        const lease = new Lease(its().backend, secret);
        const { data } = await lease.issue();
        const declared = its().backend.revocability(lease.settings) as { kind: 'expiry-only'; ttlMsMax: number };
        const isWorking = await its().works(data.expose(), secret);
        await lease.revoke();
        const confirmation = await lease.confirm();
        expect(isWorking).toBe(true);
        expect(confirmation.state).toBe('unknowable');
        const { untilMs = Number.NaN } = confirmation as { untilMs?: number };
        expect(untilMs).toBeLessThanOrEqual(Date.now() + declared.ttlMsMax);
        await eventually('its end', async () => (Date.now() >= untilMs ? true : undefined), END_MS);
        expect(await its().works(data.expose(), secret)).toBe(false);
        await lease.revoke();
        expect(['gone', 'unknowable']).toContain((await lease.confirm()).state);
      }
    },
  );

  when(promises.includes('rotate-only'))(
    'rotate-only: works whatever is revoked, without an end, and is gone when the value was changed',
    async () => {
      for (const secret of those('rotate-only')) {
        const lease = new Lease(its().backend, secret);
        const { data, warnings } = await lease.issue();
        expect(warnings?.length).toBeGreaterThan(0);
        await lease.revoke();
        expect(await lease.confirm()).toEqual({ state: 'unknowable' });
        expect(await its().works(data.expose(), secret)).toBe(true);
        await its().rotate?.(secret);
        expect((await lease.confirm()).state).toBe('gone');
        expect(await its().works(data.expose(), secret)).toBe(false);
        const next = new Lease(its().backend, secret);
        const issued = await next.issue();
        expect(await its().works(issued.data.expose(), secret)).toBe(true);
        expect((await next.confirm()).state).toBe('unknowable');
      }
    },
  );

  it('revoking again, and twice at once, is the same as once', async () => {
    for (const secret of its().secrets) {
      const lease = new Lease(its().backend, secret);
      await lease.issue();
      const another = await its().another();
      await Promise.all([lease.revoke(), lease.revoke(undefined, another)]);
      const after = await lease.retire();
      await lease.revoke();
      expect((await lease.confirm()).state).toBe(after.state);
      await another.close();
    }
  });

  when(promises.includes('instant'))('another broker revokes what this one issued', async () => {
    for (const secret of those('instant')) {
      const lease = new Lease(its().backend, secret);
      const { data } = await lease.issue();
      const another = await its().another();
      await eventually('gone', async () => {
        await lease.revoke(undefined, another);
        const { state } = await another.confirm(lease.credential(), AbortSignal.timeout(5_000));
        return state === 'gone' ? true : undefined;
      });
      expect(await its().works(data.expose(), secret)).toBe(false);
      await another.close();
    }
  });

  when(promises.includes('instant'))('revoking while it is being issued leaves nothing alive', async () => {
    for (const secret of those('instant')) {
      const before = await its().count?.();
      const leases = Array.from({ length: 12 }, () => new Lease(its().backend, secret));
      await Promise.all(
        leases.map(async (lease, at) => {
          const issuing = lease.issue().catch((error: unknown) => seen.push(error));
          await new Promise((resolve) => setTimeout(resolve, at * 2));
          await lease.revoke().catch((error: unknown) => seen.push(error));
          await issuing;
        }),
      );
      for (const lease of leases) {
        await lease.retire();
        for (const data of lease.answers) expect(await its().works(data, secret)).toBe(false);
      }
      expect(await its().count?.()).toBe(before);
    }
  });

  when(abilities.includes('renew'))(
    'a renewal gives no more than was asked, keeps what works, and revives nothing',
    async () => {
      const { backend } = its();
      for (const secret of those('instant', 'eventual')) {
        const lease = new Lease(backend, secret, 60_000);
        const { renewable, data } = await lease.issue();
        expect(renewable).toBe(true);
        const wishedMs = Date.now() + 120_000;
        const renew = async () => backend.renew?.(lease.credential(), wishedMs, AbortSignal.timeout(5_000));
        const { expiresAtMs = Number.NaN } = (await renew()) ?? {};
        expect(expiresAtMs).toBeLessThanOrEqual(wishedMs);
        expect(expiresAtMs).toBeGreaterThan(Date.now());
        expect(await its().works(data.expose(), secret)).toBe(true);
        await lease.retire();
        await failureOf(renew);
        expect(await its().works(data.expose(), secret)).toBe(false);
      }
    },
  );

  when(abilities.includes('find'))('finds exactly what is alive under our names, and nobody else’s', async () => {
    const secret = those('instant')[0] as SecretCase;
    const [kept, revoked] = [new Lease(its().backend, secret), new Lease(its().backend, secret)];
    const stranger = await its().stranger();
    const theirs = new Lease(stranger, its().theirs ?? secret);
    await Promise.all([kept.issue(), revoked.issue(), theirs.issue()]);
    await revoked.retire();
    const found = await foundBy(its().backend);
    expect(found.filter((one) => isOf(one, kept))).toHaveLength(1);
    expect(found.filter((one) => isOf(one, revoked) || isOf(one, theirs))).toEqual([]);
    const foundByThem = await foundBy(stranger);
    expect(foundByThem.filter((one) => isOf(one, theirs))).toHaveLength(1);
    expect(foundByThem.filter((one) => isOf(one, kept))).toEqual([]);
    await kept.retire();
    await theirs.retire();
    expect((await foundBy(its().backend)).filter((one) => isOf(one, kept))).toEqual([]);
    await stranger.close();
  });

  when(abilities.includes('find'))(
    'what was found can be revoked by what was found: the lease may be lost',
    async () => {
      const { backend } = its();
      const secret = those('instant')[0] as SecretCase;
      const lost = new Lease(backend, secret);
      const { data } = await lost.issue();
      const found = (await foundBy(backend)).find((one) => isOf(one, lost)) as Found;
      const orphan = { leaseId: found.leaseId ?? '', handle: found.handle, expiresAtMs: Date.now() };
      await eventually('the orphan gone', async () => {
        await backend.revoke(orphan, AbortSignal.timeout(5_000));
        return (await backend.confirm(orphan, AbortSignal.timeout(5_000))).state === 'gone' ? true : undefined;
      });
      expect(await its().works(data.expose(), secret)).toBe(false);
    },
  );

  when(abilities.includes('probe'))(
    'a probe refuses only what is dead, with a control that works in the same second',
    async () => {
      const { backend } = its();
      for (const secret of those('instant')) {
        const lease = new Lease(backend, secret);
        const { data } = await lease.issue();
        const probe = () => backend.probe?.(lease.credential(), data, AbortSignal.timeout(5_000));
        expect(await probe()).toEqual({ credential: 'accepted', control: 'accepted' });
        await lease.retire();
        expect(await probe()).toEqual({ credential: 'refused', control: 'accepted' });
      }
    },
  );
}

/** By its name; what has none is of the lease that knows all of its handle. */
function isOf({ leaseId, handle }: Found, lease: Lease): boolean {
  if (leaseId !== undefined) return leaseId === lease.id;
  return Object.entries(handle).every(([part, value]) => lease.handle[part] === value);
}

async function foundBy(backend: Backend): Promise<Found[]> {
  const found: Found[] = [];
  for await (const one of backend.find?.(AbortSignal.timeout(10_000)) ?? []) found.push(one);
  return found;
}
