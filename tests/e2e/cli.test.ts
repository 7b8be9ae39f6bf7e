import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { jest } from '@jest/globals';
import { type RedisServer, startRedis } from '../state/redis-servers.js';
import { until } from './brokers.js';

const BIN = resolve('bin/mayfly.js');
const ORDERS = 'https://orders.example';

/** Every command is a process of its own, on a machine that may be busy. */
const START_MS_MAX = 90_000;
jest.setTimeout(180_000);

interface Ran {
  code: number;
  out: string;
  err: string;
}

/** The command line as people and scripts meet it: processes, exit codes, two streams. */
describe('the command line next to a development broker', () => {
  const dir = mkdtempSync(join(tmpdir(), 'mayfly-cli-'));
  const data = join(dir, 'data');
  const bundle = join(dir, 'bundle');
  let redis: RedisServer;
  let broker: ReturnType<typeof spawn>;
  let said = '';

  beforeAll(async () => {
    redis = await startRedis();
    cpSync('config', bundle, { recursive: true });
    broker = spawn(process.execPath, [BIN, 'dev', '--no-story', '--port', '0', '--data', data, '--bundle', bundle], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, MAYFLY_REDIS_URL: redis.url },
    });
    for (const stream of [broker.stdout, broker.stderr])
      stream?.on('data', (chunk: Buffer) => {
        said += chunk.toString();
      });
    const isUp = () => said.includes('Do it by hand');
    await until('the broker is up', START_MS_MAX, () => isUp() || broker.exitCode !== null);
    if (!isUp()) throw new Error(`it ended: ${said}`);
  }, 2 * START_MS_MAX);

  afterAll(async () => {
    if (broker?.exitCode === null) {
      const gone = once(broker, 'exit');
      broker.kill('SIGTERM');
      await gone;
    }
    await redis?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  /** Runs one command; no stack trace may ever be in what it says. */
  async function mayfly(args: string[], env: Record<string, string> = {}): Promise<Ran> {
    const child = spawn(process.execPath, [BIN, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, MAYFLY_DATA: data, ...env },
    });
    let [out, err] = ['', ''];
    child.stdout.on('data', (chunk: Buffer) => {
      out += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      err += chunk.toString();
    });
    const [code] = (await once(child, 'close')) as [number];
    expect(out + err).not.toMatch(/^\s+at .+:\d+:\d+\)?$/m);
    return { code, out, err };
  }

  async function good(...args: string[]): Promise<string> {
    const { code, out, err } = await mayfly(args);
    if (code !== 0) throw new Error(`mayfly ${args.join(' ')} ended with ${code}: ${out}${err}`);
    return out.trim();
  }

  const json = async (...args: string[]) => JSON.parse(await good(...args, '-o', 'json'));
  const open = (...more: string[]) =>
    good(
      'task',
      'start',
      '--type',
      'refund',
      '--param',
      'order_id=42',
      '--agent',
      '/agent/refunds',
      ...more,
      '--field',
      'id',
    );
  const tokenOf = (task: string, tool = 'orders.read') =>
    good(
      'token',
      '--as',
      '/agent/refunds',
      '--task',
      task,
      '--resource',
      ORDERS,
      '--tool',
      tool,
      '--field',
      'access_token',
    );
  const verify = (token: string) => mayfly(['verify', '--as', '/tool/orders', '--audience', ORDERS, token]);

  describe('exit codes', () => {
    it.each([
      ['an unknown command', ['tasks']],
      ['an unknown option', ['task', 'ls', '--alive']],
      ['a missing option', ['token', '--task', 'tsk_a_1']],
      ['a value that is none', ['task', 'start', '--ttl', 'soon']],
      ['a parameter without a value', ['task', 'start', '--param', 'order_id']],
      ['a selector that names nothing', ['stop', 'colour=red', '--reason', 'x', '--yes']],
      ['a selector that says one thing twice', ['revoke', 'team=a', 'team=b', '--reason', 'x', '--yes']],
      ['an output format that is none', ['task', 'ls', '-o', 'xml']],
      ['nobody it could act as', ['task', 'ls', '--as', 'operator-9']],
      ['a person where a tool verifies', ['verify', '--audience', ORDERS, 'x.y.z']],
      ['a configuration that is none', ['config', 'check', 'package.json']],
    ])('1 on %s, with one clear line on standard error', async (_name, args) => {
      const { code, out, err } = await mayfly(args);
      expect([code, out]).toEqual([1, '']);
      expect(err).toMatch(/\S/);
    });

    it('2 when the broker cannot be reached, when there is no broker, and for what is not there', async () => {
      const gone = await mayfly(['task', 'ls'], { MAYFLY_ADDR: 'http://127.0.0.1:1' });
      expect([gone.code, gone.out]).toEqual([2, '']);
      const missing = await mayfly(['task', 'get', 'ref:never-opened']);
      expect([missing.code, missing.err]).toEqual([2, expect.stringContaining('not_found')]);
      const nowhere = await mayfly(['task', 'ls'], { MAYFLY_DATA: join(dir, 'nothing') });
      expect([nowhere.code, nowhere.err]).toEqual([1, expect.stringContaining('npm start')]);
    });

    it('3 when policy or the verifier says no; the refusal names its decision, and `why` explains it', async () => {
      const task = await open();
      const denied = await mayfly(['token', '--as', '/agent/research', '--task', task, '--resource', ORDERS]);
      expect([denied.code, denied.out]).toEqual([2, '']);
      const foreign = await mayfly(['task', 'context', task, 'colour=red', '--as', '/agent/refunds']);
      expect(foreign.code).toBe(3);
      const decision = /mayfly why (dec_\w+)/.exec(foreign.err)?.[1] as string;
      expect(await good('why', decision)).toMatch(/denied/);
      const token = await tokenOf(task);
      expect((await verify(token)).code).toBe(0);
      await good('task', 'complete', task);
      const refused = await verify(token);
      expect([refused.code, refused.out]).toEqual([3, '']);
      expect(refused.err).toMatch(/^Refused: the token was revoked\. \(revoked\)\n[\s\S]*completed/);
      expect((await verify(`${token}x`)).code).toBe(3);
    });

    it('whoever acts as nobody that is declared hears who may have been meant', async () => {
      const { code, err } = await mayfly(['task', 'start', '--as', '/agent/refnds']);
      expect([code, err]).toEqual([
        3,
        expect.stringContaining('--as: nobody declared /agent/refnds; did you mean /agent/refunds?'),
      ]);
      expect((await mayfly(['task', 'start', '--as', '/tool/orders'])).err).not.toContain('--as');
    });

    it('a stop of a name that is mistyped is not done, and one that is declared no more can be', async () => {
      const words = ['stop', 'agent=/agent/refnds', '--reason', 'drill', '--yes'];
      const mistyped = await mayfly(words);
      expect([mistyped.code, mistyped.err]).toEqual([
        1,
        expect.stringMatching(/Nothing was done: .*agent\/refunds"\? Add --undeclared/),
      ]);
      expect(await good(...words, '--undeclared', '--field', 'lock')).toMatch(/^lck_/);
    });

    it('nothing but the conventional 141 when the reader of the output has left', async () => {
      const child = spawn(process.execPath, [BIN, 'task', 'ls'], {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...process.env, MAYFLY_DATA: data },
      });
      child.stdout.destroy();
      let err = '';
      child.stderr.on('data', (chunk: Buffer) => {
        err += chunk.toString();
      });
      const [code] = (await once(child, 'close')) as [number];
      expect([code, err]).toEqual([141, '']);
    });

    it('4 when a human has to approve first', async () => {
      const waiting: Server = createServer((_request, response) => {
        response.writeHead(400, { 'content-type': 'application/json' });
        response.end(JSON.stringify({ error: 'authorization_pending', code: 'approval_pending' }));
      });
      waiting.listen(0, '127.0.0.1');
      await once(waiting, 'listening');
      try {
        const { port } = waiting.address() as AddressInfo;
        const args = ['token', '--as', '/agent/refunds', '--task', 'tsk_a_1', '--resource', ORDERS];
        const { code, out } = await mayfly(args, { MAYFLY_ADDR: `http://127.0.0.1:${port}` });
        expect([code, out]).toEqual([4, '']);
      } finally {
        waiting.close();
      }
    });
  });

  describe('what is printed', () => {
    it('data alone is on standard output: a table, JSON, or one bare value', async () => {
      const task = await open('--purpose', 'a purpose \u202e with \u0007 signs');
      const table = await mayfly(['task', 'ls']);
      expect(table.out).toContain(task);
      for (const sign of ['\u202e', '\u0007']) expect(table.out).not.toContain(sign);
      const list = await json('task', 'ls', '--live');
      expect(list.map((one: { id: string }) => one.id)).toContain(task);
      expect(await good('task', 'get', task, '--field', 'scope.tools')).toBe('["orders.read","orders.refund"]');
      const missing = await mayfly(['task', 'get', task, '--field', 'colour']);
      expect([missing.code, missing.out]).toEqual([1, '']);
      expect(missing.err).toContain('there are: id');
    });
  });

  describe('tasks', () => {
    it('are suspended, resumed, failed and cancelled, and tell whoever watches', async () => {
      const task = await open();
      const watching = mayfly(['task', 'watch', task, '-o', 'json']);
      const token = await tokenOf(task);
      expect(await good('task', 'suspend', task, '--reason', 'lunch', '--field', 'state')).toBe('suspended');
      expect((await verify(token)).code).toBe(3);
      expect(await good('task', 'resume', task, '--field', 'state')).toBe('active');
      expect(await good('task', 'fail', task, '--reason', 'no such order', '--field', 'state')).toBe('failed');
      // The first end wins, and a repeat says so.
      expect(await good('task', 'cancel', task, '--field', 'state')).toBe('failed');
      const { code, out } = await watching;
      const events = out
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line));
      expect([code, events.at(-1).task.state]).toEqual([0, 'failed']);
      expect(events.length).toBeGreaterThan(1);
    });

    it('show what a context change would take before it takes it', async () => {
      const task = await open();
      await tokenOf(task, 'orders.refund');
      const states = async () => (await json('lease', 'ls', '--task', task)).map((one: { state: string }) => one.state);
      const preview = await json('task', 'context', task, 'risk=high', '--dry-run');
      expect(preview).toMatchObject({ kept: 0, revoked: [{ agent: 'spiffe://dev.mayfly/agent/refunds' }] });
      expect(preview.revoked[0].reason).toMatch(/refunds-stop-at-high-risk/);
      expect(await states()).toEqual(['active']);
      const stale = await mayfly(['task', 'context', task, 'risk=high', '--generation', '7']);
      expect(stale.code).toBe(2);
      await good('task', 'context', task, 'risk=high');
      await until('the token is dead', 60_000, async () => !(await states()).includes('active'));
    });
  });

  describe('stopping', () => {
    const stopIt = (task: string) => ['stop', `task=${task}`];

    it('without a terminal and without --yes shows the blast radius and does nothing', async () => {
      const task = await open();
      const token = await tokenOf(task);
      const { code, err } = await mayfly([...stopIt(task), '--reason', 'odd refunds']);
      expect([code, err]).toEqual([1, expect.stringMatching(/1 token [\s\S]*Nothing was done/)]);
      expect((await verify(token)).code).toBe(0);
      const unreasoned = await mayfly([...stopIt(task), '--yes']);
      expect([unreasoned.code, unreasoned.err]).toEqual([1, expect.stringContaining('--reason')]);
      expect((await verify(token)).code).toBe(0);
    });

    it('at a terminal asks for the reason and for a yes, shows a bar, and anything but yes does nothing', async () => {
      const task = await open();
      const token = await tokenOf(task);
      const typed = (answers: string) =>
        spawnSync('script', ['-qec', `"${process.execPath}" "${BIN}" stop task=${task}`, '/dev/null'], {
          input: answers,
          encoding: 'utf8',
          timeout: START_MS_MAX,
          env: { ...process.env, MAYFLY_DATA: data },
        });
      const no = typed('odd refunds\nn\n');
      expect([no.status, no.stdout]).toEqual([0, expect.stringContaining('Nothing was done.')]);
      expect((await verify(token)).code).toBe(0);
      const yes = typed('odd refunds\ny\n');
      expect([yes.status, yes.stdout]).toEqual([0, expect.stringMatching(/Effective now; lock lck_[\s\S]*\[#{20}\]/)]);
      expect((await verify(token)).code).toBe(3);
      // The newest is first, whichever others there are.
      const [lock] = await json('lock', 'ls');
      expect(lock).toMatchObject({ reason: 'odd refunds', selector: { task } });
      expect(await good('lock', 'lift', lock.id, '--field', 'state')).toBe('requested');
      expect(await good('lock', 'lift', lock.id, '--as', 'operator-2', '--field', 'state')).toBe('lifted');
    });

    it('a revocation gives a receipt, and warns when the agent can come back', async () => {
      const task = await open();
      const token = await tokenOf(task);
      const { code, out, err } = await mayfly([
        'revoke',
        'agent=/agent/refunds',
        '--reason',
        'drill',
        '--yes',
        '-o',
        'json',
      ]);
      expect([code, err]).toEqual([0, expect.stringContaining('mayfly stop')]);
      const receipt = JSON.parse(out);
      expect(receipt).toMatchObject({ reason: 'drill', done: true, found: { agents: 1 } });
      expect(receipt.readers).toContainEqual(expect.objectContaining({ name: 'spiffe://dev.mayfly/tool/orders' }));
      expect(receipt.receipt.split('.')).toHaveLength(3);
      expect((await verify(token)).code).toBe(3);
      expect((await verify(await tokenOf(task))).code).toBe(0);
      const status = await json('feed', 'status');
      expect(status).toContainEqual(expect.objectContaining({ name: 'spiffe://dev.mayfly/tool/orders' }));
    });
  });

  describe('looking', () => {
    it('finds leases and records, and says why a token is dead to those who may know', async () => {
      const task = await open();
      const token = await tokenOf(task);
      const [lease] = await json('lease', 'ls', '--task', task);
      expect(await good('lease', 'get', lease.id, '--field', 'state')).toBe('active');
      await good('task', 'cancel', task, '--reason', 'not needed');
      for (const about of [token, lease.id, task]) expect(await good('why', about)).toMatch(/cancelled.*not needed/);
      const records = await json('audit', '--task', task);
      expect(records.map((one: { type: string }) => one.type)).toEqual(
        expect.arrayContaining(['task.opened', 'token.minted', 'task.ended']),
      );
      expect(await json('audit', '--lease', lease.id, '--type', 'token.minted')).toHaveLength(1);
      expect(JSON.stringify(records)).not.toContain(token);
      const forbidden = await mayfly(['audit', '--as', '/agent/refunds']);
      expect(forbidden.code).toBe(3);
    });

    it('the doctor is green; while Redis is frozen it is red and ends with 2', async () => {
      const green = await mayfly(['doctor']);
      expect([green.code, green.out]).toEqual([0, expect.not.stringContaining('BAD')]);
      // This broker has no database for the sample's secret. That is said in one line, and is no alarm.
      expect(green.out).toMatch(
        /^none secrets of orders-postgres +orders-db cannot be had: this broker has no backend/m,
      );
      expect(green.out).toMatch(/everything else is well\.$/m);
      for (const line of ['redis persistence', 'clock', 'trust dev.mayfly', 'signing keys', 'policies']) {
        expect(green.out).toContain(line);
      }
      await redis.kill('SIGSTOP');
      try {
        const red = await mayfly(['doctor']);
        expect([red.code, red.err]).toEqual([
          2,
          expect.stringMatching(/not ready\. What is wrong: redis\b.*\n.*Error/),
        ]);
      } finally {
        await redis.kill('SIGCONT');
      }
      await until('it is green again', 60_000, async () => (await mayfly(['doctor'])).code === 0);
    });
  });

  describe('bundles, configuration, identities', () => {
    const stricter = join(dir, 'stricter');

    it('a bundle is compared, previewed and activated; what it forbids dies', async () => {
      cpSync(bundle, stricter, { recursive: true });
      const agent = join(stricter, 'agents/refunds.yaml');
      writeFileSync(agent, readFileSync(agent, 'utf8').replace('team: payments', 'team: refunds'));
      const token = await tokenOf(await open());
      expect(await json('bundle', 'diff', stricter)).toEqual({
        added: [],
        changed: ['agents/refunds.yaml'],
        removed: [],
      });
      const preview = await json('bundle', 'preview', stricter);
      expect(preview.leases.revoked.length).toBeGreaterThan(0);
      expect((await verify(token)).code).toBe(0);
      const { digest } = await json('bundle', 'activate', stricter);
      await until('what was declared otherwise is dead', 60_000, async () => (await verify(token)).code === 3);
      const versions = await json('bundle', 'ls');
      expect(versions.filter((one: { active: boolean }) => one.active)).toEqual([expect.objectContaining({ digest })]);
      writeFileSync(join(stricter, 'policies/tokens.cedar'), 'permit (principal, action, resource) when { nonsense };');
      const broken = await mayfly(['bundle', 'activate', stricter]);
      expect([broken.code, broken.err]).toEqual([1, expect.stringContaining('policies/tokens.cedar')]);
      const tests = await mayfly(['policy', 'test', stricter]);
      expect(tests.code).toBe(1);
      await good('bundle', 'activate', bundle);
    });

    it('a configuration is checked and printed without starting anything', async () => {
      const file = join(dir, 'mayfly.yaml');
      const keyFile = join(dir, 'root.key');
      writeFileSync(keyFile, Buffer.alloc(32, 1).toString('base64'), { mode: 0o600 });
      const lines = [
        'issuer: https://mayfly.example',
        `root_key_file: ${keyFile}`,
        'redis: { url: "redis://127.0.0.1:6379" }',
        `identity: { trust_domains: [{ name: prod.example, source: { kind: file, path: ${join(dir, 'trust.json')} } }] }`,
        'listen: { port: 7117 }',
        `bundle: { dir: ${resolve('config')} }`,
      ];
      writeFileSync(file, lines.join('\n'));
      const early = await mayfly(['config', 'check', file]);
      expect([early.code, early.err]).toEqual([
        1,
        expect.stringMatching(/trust_domains\.0\.source\.path: .* is not there/),
      ]);
      expect((await mayfly(['config', 'check', '--form-only', file])).code).toBe(0);
      writeFileSync(join(dir, 'trust.json'), '{}');
      expect((await mayfly(['config', 'check', file])).code).toBe(0);
      expect(await json('config', 'print', file)).toMatchObject({
        issuer: 'https://mayfly.example',
        listen: { port: 7117 },
      });
      writeFileSync(file, lines.join('\n').replace('listen:', 'lisen:'));
      const wrong = await mayfly(['config', 'check', file]);
      expect([wrong.code, wrong.err]).toEqual([1, expect.stringMatching(/lisen[\s\S]*listen/)]);
    });

    it('a development identity is printed, or written as files', async () => {
      expect((await good('dev', 'svid', '/agent/refunds')).split('.')).toHaveLength(3);
      const out = join(dir, 'svid');
      await good('dev', 'svid', '/agent/refunds', '--x509', out);
      for (const name of ['svid.pem', 'key.pem', 'bundle.pem'])
        expect(readFileSync(join(out, name), 'utf8')).toMatch(/^-----BEGIN/);
    });
  });

  describe('last resorts', () => {
    it('a key is prepared, not used too early, and tainted: its tokens are dead', async () => {
      const token = await tokenOf(await open());
      const before: { kid: string; state: string }[] = await json('key', 'ls');
      const active = before.find((key) => key.state === 'active')?.kid as string;
      const { kid } = await json('key', 'prepare');
      const early = await mayfly(['key', 'activate', kid]);
      expect([early.code, early.err]).toEqual([2, expect.stringContaining('published')]);
      await good('key', 'taint', active, '--reason', 'drill');
      expect((await verify(token)).code).toBe(3);
      const after: { kid: string; state: string }[] = await json('key', 'ls');
      expect(after.find((key) => key.kid === active)?.state).toBe('tainted');
      expect(after.filter((key) => key.state === 'active')).toHaveLength(1);
      expect((await verify(await tokenOf(await open()))).code).toBe(0);
    });

    it('recovering raises the epoch: every token of before is dead, and grants go on', async () => {
      const task = await open();
      const token = await tokenOf(task);
      const { epoch } = await json('recover', '--reason', 'restored from yesterday');
      expect(epoch).toEqual(expect.any(Number));
      expect((await verify(token)).code).toBe(3);
      await until('grants go on', 90_000, async () => {
        const again = [
          'token',
          '--as',
          '/agent/refunds',
          '--task',
          task,
          '--resource',
          ORDERS,
          '--tool',
          'orders.read',
          '--field',
          'access_token',
        ];
        const fresh = await mayfly(again);
        if (fresh.code !== 0) throw new Error(fresh.err);
        const verified = await verify(fresh.out.trim());
        if (verified.code !== 0) throw new Error(verified.err);
        return true;
      });
    });
  });
});
