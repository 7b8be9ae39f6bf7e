import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { until } from '../brokers.js';
import type { GatedBroker } from './gated-broker.js';
import { Scene, SECRET } from './scene.js';

/** Secrets that a test knows pass through every path there is, and are then looked for in every byte that was written. */
describe('secret confinement', () => {
  let scene: Scene;
  let redis: Redis;
  const canaries = new Map<string, string>();
  const said: string[] = [];
  const metrics: string[] = [];
  const bodies: string[] = [];
  const brokers = new Set<GatedBroker>();

  const ask = async (task: string, key?: string) => {
    const broker = scene.actor;
    brokers.add(broker);
    const reply = await fetch(`${broker.process.url}/v1/secrets/${SECRET}`, {
      method: 'POST',
      headers: {
        Authorization: `Bearer ${scene.brokers.svid('/agent/refunds')}`,
        'Content-Type': 'application/json',
        ...(key !== undefined && { 'Idempotency-Key': key }),
      },
      body: JSON.stringify({ task }),
    }).catch(() => undefined);
    const text = (await reply?.text().catch(() => '')) ?? '';
    if (reply?.status !== 200) {
      bodies.push(text);
      return undefined;
    }
    const body = JSON.parse(text) as { lease_id: string; data: Record<string, string> };
    canaries.set(`the password of ${body.lease_id}`, body.data['password'] as string);
    return body;
  };
  const granted = async (task: string, key?: string) => {
    let body: Awaited<ReturnType<typeof ask>>;
    await until('it is issued', 30_000, async () => {
      body = await ask(task, key);
      return body !== undefined;
    });
    return body as NonNullable<typeof body>;
  };
  const collect = async (broker: GatedBroker) => {
    metrics.push(await fetch(`${broker.process.opsUrl}/metrics`).then((reply) => reply.text()));
    for (const path of ['/readyz', '/livez'])
      bodies.push(await fetch(`${broker.process.opsUrl}${path}`).then((reply) => reply.text()));
  };

  beforeAll(async () => {
    scene = await Scene.open(undefined, { log: { level: 'debug' } });
    redis = new Redis(scene.redis.url);
    for (const { user, password_file } of scene.postgres.managers) {
      canaries.set(`the password of the manager ${user}`, readFileSync(password_file, 'utf8').trim());
    }
    canaries.set('the root key', readFileSync(join(scene.brokers.dir, 'root.key'), 'utf8').trim());
    for (const broker of scene.standing) brokers.add(broker);

    // Issued, used, probed, revoked.
    const plain = await scene.openTask();
    const first = await granted(plain);
    await scene.endTask(plain);
    await scene.until(
      'it is verified dead',
      async (views) => (await views.lease(first.lease_id))?.evidence === 'verified-dead',
    );

    // Asked for again with the same key.
    const again = await scene.openTask();
    await granted(again, 'the-same-key');
    await granted(again, 'the-same-key');

    // Left alive: what it is to be probed with rests in Redis.
    const alive = await scene.openTask();
    await granted(alive);

    // Made, and its answer lost; made, and refused at the commit; refused by a server that is not there.
    const lost = await scene.openTask();
    scene.postgresProxy.set('swallow');
    await ask(lost);
    scene.postgresProxy.set('pass');
    const over = await scene.openTask();
    const held = scene.actor.hold('ledger.commitLease', 'before');
    const refused = ask(over);
    await Promise.race([held, refused]);
    await scene.endTask(over);
    scene.actor.go();
    await refused;
    held.catch(() => undefined);
    await scene.without('postgres', async () => {
      await scene.endTask(alive);
      await ask(lost);
    });
    await scene.without('redis', async () => {
      await ask(lost);
    });

    // Killed between making and committing: nobody was told, and nobody knows the password but the server.
    await scene.ready(2);
    const dying = await scene.openTask();
    const victim = scene.actor;
    const standing = victim.hold('ledger.commitLease', 'before');
    const never = ask(dying);
    await Promise.race([standing, never]);
    standing.catch(() => undefined);
    await collect(scene.other);
    await scene.kill(victim);
    await never;
    await scene.ready(2);
    await granted(dying);
    for (const task of [again, lost, dying]) await scene.endTask(task);
    await scene.until('all are dead', async () => (await scene.witness.look()).length === 0, 60_000);

    for (const broker of scene.standing) await collect(broker);
    await redis.bgsave();
    await until('a snapshot is written', 10_000, async () =>
      (await redis.info('persistence')).includes('rdb_bgsave_in_progress:0'),
    );
    for (const broker of brokers) said.push(broker.process.said());
    for (const broker of scene.standing) said.push(broker.process.said());
  }, 300_000);

  afterAll(async () => {
    redis?.disconnect();
    await scene?.close();
  }, 60_000);

  const expectNone = (where: string, bytes: Buffer) => {
    expect(bytes.length).toBeGreaterThan(0);
    for (const [what, secret] of canaries) {
      for (const form of formsOf(secret)) {
        if (bytes.includes(form))
          throw new Error(`${what} is in ${where}, as ${form === secret ? 'it is' : 'another form of it'}`);
      }
    }
  };

  it('the search finds what is there: the canaries are real, and their forms are looked for', () => {
    expect(canaries.size).toBeGreaterThan(6);
    for (const secret of canaries.values()) {
      expect(secret.length).toBeGreaterThan(20);
      expect(() => expectNone('x', Buffer.from(`x${secret}x`))).toThrow();
      expect(() => expectNone('x', Buffer.from(Buffer.from(secret).toString('base64')))).toThrow();
      expect(() => expectNone('x', Buffer.from(Buffer.from(secret).toString('hex')))).toThrow();
    }
  });

  it('nothing of them in the logs at debug level', () => {
    expect(said.join('')).toMatch(/"event":"job.done"|"event":"request"|debug/);
    expectNone('the logs', Buffer.from(said.join('\n')));
  });

  it('nothing of them in the metrics', () => {
    expect(metrics.length).toBeGreaterThan(2);
    expectNone('the metrics', Buffer.from(metrics.join('\n')));
  });

  it('nothing of them in what was answered when it went wrong', () => {
    expect(bodies.length).toBeGreaterThan(3);
    expectNone('error bodies', Buffer.from(bodies.join('\n')));
  });

  it('nothing of them in the files of Redis: append-only files, snapshot, log', () => {
    const files = filesBelow(scene.redis.dir);
    expect(files.some((file) => file.endsWith('.aof'))).toBe(true);
    expect(files.some((file) => file.endsWith('.rdb'))).toBe(true);
    for (const file of files) if (statSync(file).size > 0) expectNone(file, readFileSync(file));
  });

  it('nothing of them in the data folders: audit files, head files, what was acknowledged', () => {
    const files = filesBelow(scene.brokers.dir).filter((file) => !file.endsWith('root.key'));
    expect(files.length).toBeGreaterThan(5);
    for (const file of files) if (statSync(file).size > 0) expectNone(file, readFileSync(file));
  });

  it('nothing of them in any key of Redis as it is now: jobs, audit stream, leases', async () => {
    const keys = await redis.keys('*');
    expect(keys.some((key) => key.includes('audit'))).toBe(true);
    for (const key of keys) {
      expectNone('a name', Buffer.from(key));
      expectNone(key, Buffer.from(JSON.stringify(await everything(redis, key))));
    }
  });
});

function formsOf(secret: string): string[] {
  const bytes = Buffer.from(secret);
  return [
    secret,
    bytes.toString('hex'),
    bytes.toString('base64').replace(/=+$/, ''),
    bytes.toString('base64url'),
    encodeURIComponent(secret),
    JSON.stringify(secret).slice(1, -1),
  ];
}

function filesBelow(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name);
    return entry.isDirectory() ? filesBelow(path) : entry.isFile() ? [path] : [];
  });
}

async function everything(redis: Redis, key: string): Promise<unknown> {
  switch (await redis.type(key)) {
    case 'hash':
      return redis.hgetall(key);
    case 'list':
      return redis.lrange(key, 0, -1);
    case 'set':
      return redis.smembers(key);
    case 'zset':
      return redis.zrange(key, '0', '-1');
    case 'stream':
      return redis.xrange(key, '-', '+');
    default:
      return redis.get(key);
  }
}
