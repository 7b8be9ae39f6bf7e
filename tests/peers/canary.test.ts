import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Canaries, expectConfinement } from '../e2e/credentials/canaries.js';
import { Scene } from '../e2e/credentials/scene.js';
import { startFaultProxy } from './fault-proxy.js';
import { type Bao, brokerToken, describeVault, startBao, tokenRole } from './vault-world.js';

const PATH = 'secret/data/pager';
const PAGER = { secret: 'pager', field: 'key' };

describeVault('secret confinement of a value from the KV engine of a real OpenBao', () => {
  let bao: Bao;
  let scene: Scene;
  let canaries: Canaries;

  const rotate = async () => {
    const key = randomBytes(24).toString('base64url');
    await bao.set(PATH, { data: { key } });
    return key;
  };
  const leaseOf = async (id: string) => (await scene.views()).lease(id);

  beforeAll(async () => {
    bao = await startBao();
    const firstValue = await rotate();
    await tokenRole(bao, 'mayfly-pager', `path "${PATH}" { capabilities = ["read"] }`);
    const { file } = await brokerToken(bao, ['root']);
    const proxy = await startFaultProxy(bao.port);
    scene = await Scene.open(
      async () => ({
        backends: {
          bao: {
            kind: 'vault',
            address: `http://127.0.0.1:${proxy.port}`,
            auth: { method: 'token', token_file: file },
            issue_timeout_seconds: 1.5,
          },
        },
        secrets: {
          pager: {
            backend: 'bao',
            sensitivity: 'restricted',
            ttl_max: '1h',
            settings: { engine: 'kv', path: 'pager', token_role: 'mayfly-pager' },
          },
        },
        server: { proxy, halt: () => bao.seal(), resume: () => bao.unseal(), close: () => bao.close() },
      }),
      { log: { level: 'debug' } },
    );
    canaries = new Canaries(scene);
    canaries.add('the value', firstValue);
    canaries.add('the token of the broker', readFileSync(file, 'utf8').trim());

    // Handed out; its answer lost; its server sealed; asked for again with the same key.
    const task = await scene.openTask();
    const first = await canaries.issued(task, PAGER);
    expect(first.data['key']).toBe(firstValue);
    expect(await canaries.renew(first, 300)).toBe(409);
    proxy.set('swallow');
    await canaries.ask(task, PAGER);
    proxy.set('pass');
    await scene.without('openbao', async () => {
      await canaries.ask(task, PAGER);
    });
    await canaries.issued(task, { ...PAGER, key: 'the-same-key' });
    await canaries.issued(task, { ...PAGER, key: 'the-same-key' });

    // Its broker killed between reading and committing.
    await scene.ready(2);
    const victim = scene.actor;
    const standing = victim.hold('ledger.commitLease', 'before');
    const never = canaries.ask(task, PAGER);
    await Promise.race([standing, never]);
    standing.catch(() => undefined);
    await canaries.collect(scene.other);
    await scene.kill(victim);
    expect(await never).toBeUndefined();
    await scene.ready(2);

    // Out there when its task is over, and closed by its rotation.
    await scene.endTask(task);
    await scene.until(
      'it is known to be out there',
      async () => (await leaseOf(first.lease_id))?.evidence === 'unbounded',
    );
    canaries.add('the value after it', await rotate());
    await scene.until(
      'its rotation has closed it',
      async () => (await leaseOf(first.lease_id))?.state === 'revoked',
      90_000,
    );
    await canaries.collectAll();
  }, 300_000);

  afterAll(async () => {
    await scene?.close();
    bao?.close();
  }, 60_000);

  expectConfinement(() => canaries);
});
