import { readFileSync, writeFileSync } from 'node:fs';
import { type FollowingTrust, followTrust } from '../../../src/main/follow-trust.js';
import { type FakeDoor, openFakeDoor } from '../../fakes/door.js';
import { type Knock, knockAt } from '../../fakes/knock.js';
import { type FakeParts, fakeParts } from '../../fakes/parts.js';

const KEY = 'dev.mayfly#svid-1';

/** Looks again and again, for a few seconds. */
async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = Date.now() + 5_000;
  while (!(await holds())) {
    if (Date.now() > endMs) throw new Error('it did not come true within 5 s');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe('a key that leaves its trust bundle', () => {
  let parts: FakeParts;
  let following: FollowingTrust;
  beforeEach(() => {
    parts = fakeParts();
    following = followTrust(parts, 10);
  });
  afterEach(() => following.close());

  const locks = () => parts.views.locks(parts.clock.now());

  it('is locked by the system, once, and may be used again when it is back', async () => {
    parts.trustBundles.remove(KEY);
    await until(async () => (await locks()).length > 0);
    expect(await locks()).toEqual([expect.objectContaining({ selector: { key: KEY }, system: true, by: 'mayfly' })]);
    parts.trustBundles.restore(KEY);
    await until(async () => (await locks()).length === 0);
  });

  it('is locked as soon as the store answers again', async () => {
    const { revoke } = parts.ledger;
    let failures = 3;
    parts.ledger.revoke = async (request) => {
      if (failures-- > 0) throw new Error('the store is away');
      return revoke.call(parts.ledger, request);
    };
    parts.trustBundles.remove(KEY);
    await until(async () => (await locks()).length === 1);
    expect(parts.events.filter(({ event }) => event === 'key.lock_failed')).toHaveLength(3);
  });

  it('and comes back in the same moment, as another key under its name, is not left locked', async () => {
    parts.trustBundles.remove(KEY);
    parts.trustBundles.restore(KEY);
    const lifted = () => parts.line.state.audit.filter(({ type }) => type === 'lock.lifted').length;
    await until(() => lifted() === 1);
    expect(await locks()).toEqual([]);
  });

  it('is locked once by several brokers', async () => {
    const other = fakeParts({ clock: parts.clock, line: parts.line });
    const also = followTrust(other, 10);
    parts.trustBundles.remove(KEY);
    await until(async () => (await locks()).length === 1);
    other.trustBundles.remove(KEY);
    other.trustBundles.remove('dev.mayfly#marker');
    await until(async () => (await locks()).some(({ selector }) => selector.key === 'dev.mayfly#marker'));
    expect((await locks()).filter(({ selector }) => selector.key === KEY)).toHaveLength(1);
    await also.close();
  });

  it('and was back before this broker started stays locked, and the start says how to lift it', async () => {
    parts.trustBundles.remove(KEY);
    await until(async () => (await locks()).length === 1);
    const later = fakeParts({ clock: parts.clock, line: parts.line });
    const restarted = followTrust(later, 10);
    await until(() => later.events.some(({ event }) => event === 'key.trusted_but_locked'));
    const [lock] = await locks();
    expect(later.events).toContainEqual(
      expect.objectContaining({ keyId: KEY, advice: expect.stringContaining(`mayfly lock lift ${lock?.id}`) }),
    );
    await restarted.close();
  });

  it('is tried no longer than the broker lives', async () => {
    parts.ledger.revoke = async () => {
      throw new Error('the store is away');
    };
    parts.trustBundles.remove(KEY);
    await until(() => parts.events.length > 0);
    await following.close();
    const { length } = parts.events;
    parts.trustBundles.remove('dev.mayfly#other');
    expect(parts.events).toHaveLength(length);
  });
});

describe('at a broker whose trust bundle is a file', () => {
  let door: FakeDoor;
  let knock: Knock;
  let following: FollowingTrust;
  beforeEach(async () => {
    door = await openFakeDoor();
    knock = knockAt(door);
    following = followTrust(door.parts, 10);
  });
  afterEach(async () => {
    await following.close();
    await door.close();
  });

  it('a token is dead when the key of the SVID it was got with left, and stays so when the key is back', async () => {
    const task = await knock.task();
    const overMtls = { over: '/agent/refunds' };
    const { token } = await knock.minted(knock.exchange('/agent/refunds', task));
    const byCertificate = await knock.minted(
      { ...knock.exchange('/agent/refunds', task), client_id: 'spiffe://dev.mayfly/agent/refunds' },
      overMtls,
    );
    const active = async (one: string) => (await knock.introspect(one)).body?.active;
    expect([await active(token), await active(byCertificate.token)]).toEqual([true, true]);

    const before = readFileSync(door.trustDomain.bundlePath, 'utf8');
    const bundle = JSON.parse(before);
    const x509Only = bundle.keys.filter(({ use }: { use: string }) => use === 'x509-svid');
    const next = (keys: unknown[], sequence: number) =>
      writeFileSync(door.trustDomain.bundlePath, JSON.stringify({ ...bundle, spiffe_sequence: sequence, keys }));
    next(x509Only, bundle.spiffe_sequence + 1);
    await refreshed(door);
    const locked = async () => (await door.parts.views.locks(door.parts.clock.now())).length;
    await until(async () => (await locked()) === 1);
    expect((await knock.token(knock.exchange('/agent/refunds', task))).body.error).toBe('invalid_request');

    next(bundle.keys, bundle.spiffe_sequence + 2);
    await refreshed(door);
    await until(async () => (await locked()) === 0);
    expect(await active(token)).toBe(false);
    const { token: again } = await knock.minted(knock.exchange('/agent/refunds', task));
    expect(await active(again)).toBe(true);
  });
});

async function refreshed({ parts: { trustBundles } }: FakeDoor): Promise<void> {
  await (trustBundles as typeof trustBundles & { refresh(): Promise<void> }).refresh();
}
