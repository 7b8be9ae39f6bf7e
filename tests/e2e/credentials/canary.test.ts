import { randomBytes } from 'node:crypto';
import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Encryption } from '../../../src/state/encryption.js';
import { until } from '../brokers.js';
import { Canaries, expectConfinement } from './canaries.js';
import { type Given, Scene } from './scene.js';

const PAGER = { secret: 'pager', field: 'api_key' };

/** Secrets that a test knows pass through every path there is, and are then looked for in every byte that was written. */
describe('secret confinement', () => {
  let scene: Scene;
  let canaries: Canaries;
  let rotate: () => string;

  const stateOf = async (lease: string) => (await (await scene.views()).lease(lease))?.state;

  beforeAll(async () => {
    let firstValue = '';
    scene = await Scene.open(
      async ({ brokers }) => {
        const dir = join(brokers.dir, 'keys');
        mkdirSync(dir);
        const rootKey = Buffer.from(readFileSync(join(brokers.dir, 'root.key'), 'utf8'), 'base64');
        rotate = () => {
          const value = randomBytes(24).toString('base64url');
          writeFileSync(
            join(dir, 'pager'),
            new Encryption(rootKey, 'a').encrypt('backend', 'pager', Buffer.from(value)),
          );
          return value;
        };
        firstValue = rotate();
        letHaveAStandingValue(brokers);
        return {
          backends: { keys: { kind: 'static', dir } },
          secrets: {
            pager: {
              backend: 'keys',
              sensitivity: 'restricted',
              ttl_max: '1h',
              settings: { value: 'pager', field: 'api_key' },
            },
          },
        };
      },
      { log: { level: 'debug' } },
    );
    canaries = new Canaries(scene);
    canaries.add('the standing value', firstValue);

    // Issued, renewed, used, probed, revoked.
    const plain = await scene.openTask();
    const first = await canaries.issued(plain, { ttlSeconds: 20 });
    expect(await canaries.renew(first, 300)).toBe(200);
    await scene.endTask(plain);
    await scene.until(
      'it is verified dead',
      async (views) => (await views.lease(first.lease_id))?.evidence === 'verified-dead',
    );
    expect(await canaries.renew(first, 300)).toBe(409);

    // A standing value: handed out, rotated, and closed by its rotation.
    const standing = await scene.openTask();
    const pager = await canaries.issued(standing, PAGER);
    expect(pager.data['api_key']).toBe(firstValue);
    expect(await canaries.renew(pager, 300)).toBe(409);
    await scene.endTask(standing);
    await until('it is known to be out there', 30_000, async () => (await stateOf(pager.lease_id)) === 'revoking');
    canaries.add('the value after it', rotate());

    // Asked for again with the same key.
    const again = await scene.openTask();
    await canaries.issued(again, { key: 'the-same-key' });
    await canaries.issued(again, { key: 'the-same-key' });

    // Left alive: what it is to be probed with rests in Redis.
    const alive = await scene.openTask();
    await canaries.issued(alive);
    const renewing = await canaries.issued(alive, { ttlSeconds: 60 });

    // Made, and its answer lost; made, and refused at the commit; refused by a server that is not there.
    const lost = await scene.openTask();
    scene.postgresProxy.set('swallow');
    await canaries.ask(lost);
    await canaries.renew(renewing, 120);
    scene.postgresProxy.set('pass');
    const over = await scene.openTask();
    const held = scene.actor.hold('ledger.commitLease', 'before');
    const refused = canaries.ask(over);
    await Promise.race([held, refused]);
    await scene.endTask(over);
    scene.actor.go();
    await refused;
    held.catch(() => undefined);
    await scene.without('postgres', async () => {
      await canaries.renew(renewing, 180);
      await scene.endTask(alive);
      await canaries.ask(lost);
    });
    await scene.without('redis', async () => {
      await canaries.ask(lost);
    });

    // Killed between making and committing, and in a renewal: nobody was told, and nobody knows the password but the server.
    await scene.ready(2);
    const dying = await scene.openTask();
    const victim = scene.actor;
    const halfRenewed = await canaries.issued(dying, { ttlSeconds: 20 });
    const beforeRenewal = victim.hold('backend.renew', 'before');
    const neverRenewed = canaries.renew(halfRenewed, 300);
    await Promise.race([beforeRenewal, neverRenewed]);
    beforeRenewal.catch(() => undefined);
    const beforeCommit = victim.hold('ledger.commitLease', 'before');
    const neverIssued = canaries.ask(dying);
    await Promise.race([beforeCommit, neverIssued]);
    beforeCommit.catch(() => undefined);
    await canaries.collect(scene.other);
    await scene.kill(victim);
    expect(await Promise.all([neverRenewed, neverIssued])).toEqual([undefined, undefined]);
    await scene.ready(2);
    await canaries.issued(dying);
    for (const task of [again, lost, dying]) await scene.endTask(task);
    await scene.until('all are dead', async () => (await scene.witness.look()).length === 0, 60_000);
    await scene.until('its rotation has closed it', async () => (await stateOf(pager.lease_id)) === 'revoked', 90_000);
    await canaries.collectAll();
  }, 300_000);

  afterAll(async () => {
    await scene?.close();
  }, 60_000);

  expectConfinement(() => canaries);
});

function letHaveAStandingValue({ bundleDir }: Given['brokers']): void {
  appendFileSync(
    join(bundleDir, 'agents/refunds.yaml'),
    'standing_exceptions:\n  - { secret: pager, reason: "no users there", owner: ops@dev.example, until: 2031-06-30 }\n',
  );
}
