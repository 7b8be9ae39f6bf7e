import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../brokers.js';
import { type Issued, Scene } from './scene.js';

/** docs/architecture.md, Bounds: life of an orphan credential, with its backend up. */
const ORPHAN_MS_MAX = 30_000;

describe('a store that is lost for good', () => {
  let scene: Scene;
  let issued: Issued;

  beforeAll(async () => {
    scene = await Scene.open();
    issued = await scene.issued(await scene.openTask(), scene.actor);
  }, 120_000);

  afterAll(async () => {
    await scene?.close();
  }, 60_000);

  it('takes no credential with it: started empty with the same root key, what was issued before is found, cut off and revoked', async () => {
    const session = await scene.logIn(issued.reply);
    expect((await session.query('SELECT count(*) FROM orders')).rowCount).toBe(1);
    // Nobody of before has anything to say to the new store.
    const fallen = [...scene.standing];
    for (const broker of fallen) broker.signal('SIGSTOP');
    await scene.redis.kill();
    for (const file of readdirSync(scene.redis.dir)) {
      if (/^appendonlydir$|\.rdb$/.test(file)) rmSync(join(scene.redis.dir, file), { recursive: true });
    }
    await scene.redis.restart();
    for (const broker of fallen) await scene.kill(broker);
    await scene.ready(1);

    expect(await (await scene.views()).lease(issued.lease)).toBeUndefined();
    await until(
      'the credential is gone',
      ORPHAN_MS_MAX,
      async () => !(await scene.witness.look()).includes(issued.role),
    );
    await expect(session.query('SELECT 1')).rejects.toThrow();
    await expect(scene.logIn(issued.reply)).rejects.toThrow(/password authentication failed|does not exist/);
    expect(await scene.canIssue()).toBe(true);
  }, 180_000);
});
