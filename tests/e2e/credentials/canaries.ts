import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { until } from '../brokers.js';
import type { GatedBroker } from './gated-broker.js';
import { type Scene, SECRET } from './scene.js';

/** Shorter ones could be found by chance. */
const LENGTH_MIN = 20;
const WITHIN_MS = 30_000;

interface Answer {
  lease_id: string;
  data: Record<string, string>;
}

interface Asked {
  secret?: string;
  /** The field of its data that is the secret. */
  field?: string;
  key?: string;
  ttlSeconds?: number;
}

/** Secrets that a test knows, on their way through a scene, and everything that was written meanwhile. */
export class Canaries {
  readonly scene: Scene;
  readonly secrets = new Map<string, string>();
  readonly said: string[] = [];
  readonly metrics: string[] = [];
  /** Of whatever was answered, except for a secret itself. */
  readonly bodies: string[] = [];
  readonly #brokers = new Set<GatedBroker>();

  constructor(scene: Scene) {
    this.scene = scene;
    for (const { user, password_file } of scene.postgres.managers) {
      this.add(`the password of the manager ${user}`, readFileSync(password_file, 'utf8').trim());
    }
    this.add('the root key', readFileSync(join(scene.brokers.dir, 'root.key'), 'utf8').trim());
    for (const broker of scene.standing) this.#brokers.add(broker);
  }

  add(what: string, secret: string): void {
    if (secret.length < LENGTH_MIN) throw new Error(`${what} is too short to be looked for`);
    this.secrets.set(what, secret);
  }

  /** Undefined: it was refused, or nobody answered. */
  async ask(task: string, { secret = SECRET, field = 'password', key, ttlSeconds }: Asked = {}) {
    const reply = await this.#post(`/v1/secrets/${secret}`, { task, ttl_seconds: ttlSeconds }, key);
    if (reply?.status !== 200) {
      this.bodies.push(reply?.text ?? '');
      return undefined;
    }
    const answer = JSON.parse(reply.text) as Answer;
    this.add(`the ${field} of ${answer.lease_id}`, answer.data[field] as string);
    return answer;
  }

  /** As a client does it: until it is issued. */
  async issued(task: string, asked: Asked = {}): Promise<Answer> {
    let answer: Answer | undefined;
    await until('it is issued', WITHIN_MS, async () => {
      answer = await this.ask(task, asked);
      return answer !== undefined;
    });
    return answer as Answer;
  }

  /** Returns the status; undefined: nobody answered. */
  async renew({ lease_id }: Answer, incrementSeconds: number): Promise<number | undefined> {
    const reply = await this.#post(`/v1/leases/${lease_id}/renew`, { increment_seconds: incrementSeconds });
    this.bodies.push(reply?.text ?? '');
    return reply?.status;
  }

  async collect(broker: GatedBroker): Promise<void> {
    const ask = (path: string) => fetch(`${broker.process.opsUrl}${path}`).then((reply) => reply.text());
    this.metrics.push(await ask('/metrics'));
    for (const path of ['/readyz', '/livez']) this.bodies.push(await ask(path));
  }

  /** When everything is over. */
  async collectAll(): Promise<void> {
    for (const path of ['leases?limit=100', 'audit?limit=100', 'backends', 'secrets']) {
      const reply = await this.scene.brokers.operate(this.scene.actor.process, 'GET', `/v1/${path}`);
      if (reply.status !== 200) throw new Error(`${path}: ${reply.status} ${JSON.stringify(reply.body)}`);
      this.bodies.push(JSON.stringify(reply.body));
    }
    for (const broker of this.scene.standing) {
      this.#brokers.add(broker);
      await this.collect(broker);
    }
    for (const broker of this.#brokers) this.said.push(broker.process.said());
  }

  /** Throws when one of them, or another form of it, is among these bytes. */
  expectNone(where: string, bytes: Buffer): void {
    expect(bytes.length).toBeGreaterThan(0);
    for (const [what, secret] of this.secrets) {
      for (const form of formsOf(secret)) {
        if (bytes.includes(form)) {
          throw new Error(`${what} is in ${where}, as ${form === secret ? 'it is' : 'another form of it'}`);
        }
      }
    }
  }

  async #post(path: string, body: unknown, key?: string): Promise<{ status: number; text: string } | undefined> {
    const broker = this.scene.actor;
    this.#brokers.add(broker);
    const reply = await fetch(`${broker.process.url}${path}`, {
      method: 'POST',
      headers: {
        Authorization: `Bearer ${this.scene.brokers.svid('/agent/refunds')}`,
        'Content-Type': 'application/json',
        ...(key !== undefined && { 'Idempotency-Key': key }),
      },
      body: JSON.stringify(body),
    }).catch(() => undefined);
    return reply && { status: reply.status, text: await reply.text().catch(() => '') };
  }
}

/** What holds once they have passed: none of them is in anything that was written. */
export function expectConfinement(of: () => Canaries): void {
  it('the search finds what is there: the canaries are real, and their forms are looked for', () => {
    const canaries = of();
    expect(canaries.secrets.size).toBeGreaterThan(6);
    for (const secret of canaries.secrets.values()) {
      expect(() => canaries.expectNone('x', Buffer.from(`x${secret}x`))).toThrow();
      expect(() => canaries.expectNone('x', Buffer.from(Buffer.from(secret).toString('base64')))).toThrow();
      expect(() => canaries.expectNone('x', Buffer.from(Buffer.from(secret).toString('hex')))).toThrow();
    }
  });

  it('nothing of them in the logs at debug level', () => {
    const said = of().said.join('\n');
    expect(said).toMatch(/"event":"job.done"|"event":"request"|debug/);
    of().expectNone('the logs', Buffer.from(said));
  });

  it('nothing of them in the metrics', () => {
    expect(of().metrics.length).toBeGreaterThan(1);
    of().expectNone('the metrics', Buffer.from(of().metrics.join('\n')));
  });

  it('nothing of them in what was answered when it went wrong, nor in what operators see', () => {
    expect(of().bodies.length).toBeGreaterThan(3);
    of().expectNone('a body', Buffer.from(of().bodies.join('\n')));
  });

  it('nothing of them in the files of Redis: append-only files, snapshot, log', async () => {
    const { redis } = of().scene;
    const client = new Redis(redis.url);
    await client.bgsave();
    await until('a snapshot is written', 10_000, async () =>
      (await client.info('persistence')).includes('rdb_bgsave_in_progress:0'),
    );
    client.disconnect();
    const files = filesBelow(redis.dir);
    expect(files.some((file) => file.endsWith('.aof'))).toBe(true);
    expect(files.some((file) => file.endsWith('.rdb'))).toBe(true);
    for (const file of files) if (statSync(file).size > 0) of().expectNone(file, readFileSync(file));
  });

  it('nothing of them in the data folders: audit files, head files, what was acknowledged', () => {
    const files = filesBelow(of().scene.brokers.dir).filter((file) => !file.endsWith('root.key'));
    expect(files.length).toBeGreaterThan(5);
    for (const file of files) if (statSync(file).size > 0) of().expectNone(file, readFileSync(file));
  });

  it('nothing of them in any key of Redis as it is now: jobs, audit stream, leases', async () => {
    const client = new Redis(of().scene.redis.url);
    try {
      const keys = await client.keys('*');
      expect(keys.some((key) => key.includes('audit'))).toBe(true);
      for (const key of keys) {
        of().expectNone('a name', Buffer.from(key));
        of().expectNone(key, Buffer.from(JSON.stringify(await everything(client, key))));
      }
    } finally {
      client.disconnect();
    }
  });
}

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
