import { generateKeyPairSync } from 'node:crypto';
import { chmodSync } from 'node:fs';
import { dirname } from 'node:path';
import { readBundle } from '../../../../src/main/read-bundle.js';
import { AtBroker } from './at-broker.js';

/* What somebody new gets wrong, and what the command line says to that: by name, and before anything is done. */

const SECRET = {
  request_id: 'r',
  lease_id: 'lse_a_1',
  lease_duration: 60,
  renewable: true,
  data: { password: 'p' },
  task: 'tsk_a_1',
};
const GET = ['secret', 'get', 'orders-db', '--task', 'tsk_a_1'];
const NEVER = '/nothing/is/here';
const IDENTITY_FILES = ['MAYFLY_JWT_SVID_FILE', 'MAYFLY_PERSON_TOKEN_FILE', 'MAYFLY_CERT_FILE', 'MAYFLY_KEY_FILE'];

const TASK_OF_AN_HOUR = {
  id: 'tsk_a_1',
  state: 'active',
  created_at: '2130-01-01T00:00:00Z',
  deadline: '2130-01-01T01:00:00Z',
};

describe('the command line says what to do', () => {
  let at: AtBroker;
  beforeEach(async () => {
    at = await AtBroker.open();
  });
  afterEach(() => at.close());

  it.each(['127.0.0.1:7117', 'localhost:7117', 'mayfly', 'ftp://mayfly'])(
    'an address that is none, %s, is shown with its variable and an example',
    async (address) => {
      process.env['MAYFLY_ADDR'] = address;
      const { code, err } = await at.mayfly('task', 'ls');
      expect([code, err]).toEqual([1, expect.stringMatching(/MAYFLY_ADDR: .*http:\/\/127\.0\.0\.1:7117/)]);
      expect(err).toContain(address);
    },
  );

  it('a damaged file of the development broker is named, and asked for only where no address is set', async () => {
    const path = at.file('runtime.json', '{"url":');
    process.env['MAYFLY_DATA'] = dirname(path);
    expect((await at.mayfly('lease', 'ls')).code).toBe(0);
    process.env['MAYFLY_ADDR'] = '';
    const { code, err } = await at.mayfly('lease', 'ls');
    expect([code, err]).toEqual([1, expect.stringContaining(`No broker: ${path} is damaged (no JSON).`)]);
    expect(err).toContain('start that one anew (npm start), which writes it again, or set MAYFLY_ADDR');
  });

  it.each(['MAYFLY_CA_FILE', 'MAYFLY_ISSUER', 'MAYFLY_PERSON_TOKEN_FILE', 'MAYFLY_CERT_FILE', 'MAYFLY_KEY_FILE'])(
    '%s that is empty says nothing',
    async (variable) => {
      process.env[variable] = '';
      expect(await at.mayfly('lease', 'ls')).toMatchObject({ code: 0, err: '' });
    },
  );

  it.each([
    ['that is nowhere', () => 'no-such-command', 127, 'The command no-such-command is not found: write its path, or'],
    [
      'that is no program',
      () => at.file('notes', ''),
      126,
      'cannot be executed (EACCES): name a program that this user',
    ],
    ['whose interpreter is nowhere', () => script('#!/nowhere/sh\n'), 127, 'names to run it is not there'],
  ])('a command to run %s ends as in a shell, and its task with it', async (_, command, status, says) => {
    at.answer = () => ({ body: TASK_OF_AN_HOUR });
    const { code, err } = await at.mayfly('run', '--', command());
    expect([code, err]).toEqual([status, expect.stringContaining(says)]);
    expect(at.asked.at(-1)?.url.pathname).toBe('/v1/tasks/tsk_a_1/fail');
  });

  function script(text: string): string {
    const path = at.file('script', text);
    chmodSync(path, 0o755);
    return path;
  }

  it('an option of the command to run is told where it belongs, and nothing is done', async () => {
    const { code, err } = await at.mayfly('run', process.execPath, '-e', '');
    expect([code, err]).toEqual([1, expect.stringContaining('stand after --: mayfly run … -- COMMAND')]);
    const typo = await at.mayfly('run', '--secert', 'a=B', '--', 'true');
    expect(typo.err).toContain('Did you mean --secret?');
    expect(typo.err).not.toContain('stand after --');
    expect(at.asked).toEqual([]);
  });

  it.each([
    'MAYFLY_JWT_SVID_FILE',
    'MAYFLY_PERSON_TOKEN_FILE',
    'MAYFLY_CA_FILE',
    'MAYFLY_CERT_FILE',
    'MAYFLY_KEY_FILE',
  ])('a file that is not there is shown with its variable, %s', async (variable) => {
    await at.showCertificate();
    process.env[variable] = NEVER;
    const { code, err } = await at.mayfly('task', 'ls');
    expect([code, err]).toEqual([1, expect.stringContaining(`${variable}: ${NEVER} cannot be read (ENOENT)`)]);
  });

  it.each([
    ['MAYFLY_CERT_FILE', 'MAYFLY_KEY_FILE'],
    ['MAYFLY_KEY_FILE', 'MAYFLY_CERT_FILE'],
  ])('%s without %s is told with both, whatever else would say who asks', async (set, missing) => {
    process.env[set] = process.env['MAYFLY_JWT_SVID_FILE'] as string;
    const { code, err } = await at.mayfly('task', 'ls');
    expect([code, err]).toEqual([1, expect.stringContaining(`${set} is set and ${missing} is not`)]);
    expect(at.asked).toEqual([]);
  });

  it.each(IDENTITY_FILES)('--as beside %s is refused with both: whoever acts is who was named', async (variable) => {
    const file = process.env['MAYFLY_JWT_SVID_FILE'] as string;
    delete process.env['MAYFLY_JWT_SVID_FILE'];
    process.env[variable] = file;
    const { code, err } = await at.mayfly('task', 'start', '--as', '/agent/refunds');
    expect([code, err]).toEqual([1, expect.stringContaining(`--as /agent/refunds is one identity and ${variable}`)]);
    expect(at.asked).toEqual([]);
  });

  it('a certificate for an address without TLS is told with the address it needs', async () => {
    const address = process.env['MAYFLY_ADDR'];
    await at.showCertificate();
    process.env['MAYFLY_ADDR'] = address;
    const { code, err } = await at.mayfly('task', 'ls');
    expect([code, err]).toEqual([1, expect.stringMatching(/needs an https address.*MAYFLY_ADDR.*mtls_url/)]);
    expect(at.asked).toEqual([]);
  });

  it.each(
    IDENTITY_FILES.flatMap((variable): [string, string, string][] => [
      [variable, 'is empty', '\n'],
      [variable, 'is not a', '# hunter2: a page\n\nof words'],
    ]),
  )(
    '%s: a file that %s identity is told as such, and not as a broker that does not answer',
    async (variable, said, text) => {
      if (/CERT|KEY/.test(variable)) await at.showCertificate();
      else delete process.env['MAYFLY_JWT_SVID_FILE'];
      const path = at.file('wrong', text);
      process.env[variable] = path;
      const { code, err } = await at.mayfly('task', 'ls');
      expect([code, err]).toEqual([1, expect.stringContaining(`${variable}: ${path} ${said}`)]);
      expect(err).not.toContain('hunter2');
      expect(at.asked).toEqual([]);
    },
  );

  it('a key that is not its certificate’s is told with both files, and not as a broker that does not answer', async () => {
    await at.showCertificate();
    const key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' });
    const path = at.file('other.pem', key as string);
    process.env['MAYFLY_KEY_FILE'] = path;
    const { code, err } = await at.mayfly('task', 'ls');
    const both = `MAYFLY_KEY_FILE: ${path} is not the key of the certificate in MAYFLY_CERT_FILE, ${process.env['MAYFLY_CERT_FILE']}`;
    expect([code, err]).toEqual([1, expect.stringContaining(both)]);
  });

  it('a configuration that is not there', async () => {
    const { code, err } = await at.mayfly('config', 'check', NEVER);
    expect([code, err]).toEqual([1, expect.stringContaining(`${NEVER}: there is no such file.`)]);
  });

  it.each([['audit'], ['task', 'ls'], ['lease', 'ls'], ['secret', 'ls']])(
    'a limit that is no number: %s %s',
    async (...words) => {
      for (const limit of ['abc', '0', '-1', '1.5']) {
        const { code, err } = await at.mayfly(...words, '--limit', limit);
        expect([code, err]).toEqual([1, expect.stringContaining('--limit: a number')]);
      }
      expect(at.asked).toEqual([]);
    },
  );

  it.each([
    [[], { live: 'true', given_for: 'task' }],
    [['--all'], {}],
    [['--state', 'revoked'], { state: 'revoked' }],
    [['--task', 'tsk_a_1'], { task: 'tsk_a_1', live: 'true', given_for: 'task' }],
  ])('leases are the live ones of tasks, unless something else is asked for: lease ls %j', async (words, asked) => {
    await at.mayfly('lease', 'ls', ...words);
    expect(Object.fromEntries(at.asked[0]?.url.searchParams ?? [])).toEqual({ limit: '50', ...asked });
  });

  it.each([['audit'], ['task', 'ls'], ['lease', 'ls'], ['secret', 'ls']])(
    'how to get what is not in this page, and nothing when that was all: %s %s',
    async (...words) => {
      at.answer = ({ url }) => ({
        body: { items: [], ...(!url.searchParams.has('cursor') && { next_cursor: 'c.1' }) },
      });
      const first = await at.mayfly(...words);
      expect([first.code, first.err]).toEqual([0, 'More: --cursor c.1\n']);
      const last = await at.mayfly(...words, '--cursor', 'c.1', '-o', 'json');
      expect([last.code, last.err, JSON.parse(last.out)]).toEqual([0, '', []]);
      expect(at.asked.map(({ url }) => url.searchParams.get('cursor'))).toEqual([null, 'c.1']);
    },
  );

  it.each([
    ['start', ['task', 'start', '--context', 'rsik=high'], { ...TASK_OF_AN_HOUR, warnings: ['No rsik.'] }],
    ['context', ['task', 'context', 'tsk_a_1', 'rsik=high'], { task: TASK_OF_AN_HOUR, warnings: ['No rsik.'] }],
  ])('what the broker warns of is told on standard error: task %s', async (_, args, body) => {
    at.answer = () => ({ body });
    const { code, err } = await at.mayfly(...args);
    expect([code, err]).toEqual([0, 'Warning: No rsik.\n']);
  });

  it('a secret asked for by a person is for an agent: who one is, and --as', async () => {
    process.env['MAYFLY_PERSON_TOKEN_FILE'] = process.env['MAYFLY_JWT_SVID_FILE'];
    delete process.env['MAYFLY_JWT_SVID_FILE'];
    const { code, err } = await at.mayfly(...GET);
    expect([code, err]).toEqual([1, expect.stringMatching(/operator-1.*--as/)]);
    expect(at.asked).toEqual([]);
  });

  it.each([
    ['a secret', GET],
    ['a token', ['token', '--task', 'tsk_a_1', '--resource', 'https://orders.example']],
  ])('a field that it has not is refused before %s is issued', async (_what, words) => {
    const { code, err } = await at.mayfly(...words, '--field', 'lease');
    expect([code, err]).toEqual([1, expect.stringMatching(/Nothing was done.*lease_id/)]);
    expect(at.asked).toEqual([]);
  });

  it('a field that this secret has not is told with those it has, and the credential is given back', async () => {
    at.answer = ({ url }) => ({
      body: url.pathname.startsWith('/v1/secrets') ? SECRET : { lease_id: 'lse_a_1', state: 'revoking' },
    });
    const { code, out, err } = await at.mayfly(...GET, '--field', 'data.pasword');
    expect([code, out]).toEqual([1, '']);
    expect(err).toMatch(/given back[\s\S]*there are: data\.password/);
    expect(at.asked.map(({ url }) => url.pathname)).toEqual(['/v1/secrets/orders-db', '/v1/leases/lse_a_1/revoke']);
  });

  it('a field of the value may be named as with other tools, without data', async () => {
    at.answer = () => ({ body: SECRET });
    const { code, out } = await at.mayfly(...GET, '--field', 'password');
    expect([code, out]).toEqual([0, 'p\n']);
  });

  it('an end of a task that is over in another way is told with the end that stands', async () => {
    at.answer = () => ({ body: { id: 'tsk_a_1', state: 'failed', ended_by: 'alice', end_reason: 'no stock' } });
    const { code, err } = await at.mayfly('task', 'complete', 'tsk_a_1');
    expect([code, err]).toEqual([0, 'The task was over already, failed by alice: no stock; the first end stands.\n']);
    expect((await at.mayfly('task', 'fail', 'tsk_a_1')).err).toBe('');
  });

  it('a change of the context tells what dies of it', async () => {
    const dying = { lease: 'lse_a_1', agent: 'spiffe://dev.mayfly/agent/refunds', reason: 'risk is high' };
    const preview = { kept: 2, dying: 1, revoked: [dying], at_least: false };
    at.answer = ({ body }) => ({ body: { task: TASK_OF_AN_HOUR, ...(body['dry_run'] ? { preview } : {}) } });
    const { code, err } = await at.mayfly('task', 'context', 'tsk_a_1', 'risk=high');
    expect([code, err]).toEqual([0, `1 lease of the task dies of it.\n  lse_a_1 of ${dying.agent}: risk is high\n`]);
    expect(at.asked.map(({ body }) => body['dry_run'] ?? false)).toEqual([true, false]);
  });

  it('the one problem of a request is told once', async () => {
    const detail = 'params.order_id: required by refund.';
    at.answer = () => ({ status: 400, body: { code: 'invalid_request', detail, problems: [detail, 'another'] } });
    const { err } = await at.mayfly('task', 'start', '--type', 'refund');
    expect(err).toBe(`Error: ${detail} (invalid_request)\n  - another\n`);
  });

  it('one of a thing is one', async () => {
    const preview = { agents: ['a'], tasks: ['t', 'u'], leases: 1, credentials: 0, resources: [], at_least: false };
    at.answer = () => ({ body: { preview, warnings: [] } });
    const { err } = await at.mayfly('stop', 'team=x', '--reason', 'x');
    expect(err).toContain('This hits 1 token and 0 credentials of 1 agent in 2 tasks:');
  });

  it('a credential that could neither be printed nor given back is named', async () => {
    at.answer = ({ url }) =>
      url.pathname.startsWith('/v1/secrets') ? { body: SECRET } : { status: 503, body: { code: 'unavailable' } };
    const { err } = await at.mayfly(...GET, '--field', 'data.pasword');
    expect(err).toContain('mayfly lease revoke lse_a_1');
  });

  it('a mistyped secret is told with the one that may be meant, when it may be listed', async () => {
    at.answer = ({ method }) =>
      method === 'GET'
        ? { body: { items: [{ name: 'orders-db', backend: 'pg', open: true }] } }
        : { status: 404, body: { code: 'not_found', detail: 'There is no such secret.' } };
    const { code, err } = await at.mayfly('secret', 'get', 'order-db', '--task', 'tsk_a_1');
    expect([code, err]).toEqual([2, expect.stringContaining('did you mean orders-db?')]);
    at.answer = () => ({ status: 404, body: { code: 'not_found', detail: 'There is no such secret.' } });
    expect((await at.mayfly('secret', 'get', 'order-db', '--task', 'tsk_a_1')).err).not.toContain('did you mean');
  });

  it('a secret that a command was to run with is named when it is not given, with the one that may be meant', async () => {
    at.answer = ({ url }) => {
      if (url.pathname === '/v1/secrets')
        return { body: { items: [{ name: 'orders-db', backend: 'pg', open: true }] } };
      if (url.pathname.startsWith('/v1/secrets/')) return { status: 404, body: { code: 'not_found', detail: 'No.' } };
      return {
        body: { id: 'tsk_a_1', state: 'active', created_at: '2130-01-01T00:00:00Z', deadline: '2130-01-01T01:00:00Z' },
      };
    };
    const { code, err } = await at.mayfly('run', '--secret', 'order-db=DB', '--', process.execPath, '-e', '');
    expect(code).toBe(2);
    expect(err).toMatch(/The secret order-db was not given[\s\S]*did you mean orders-db\?/);
  });

  it.each([
    ['task', 'start'],
    ['run', '--', process.execPath, '-e', ''],
  ])(
    'a task without a type that is denied is told with --type and, where they may be seen, the types: %s',
    async (...words) => {
      const denied = { status: 403, body: { code: 'denied', detail: 'no' } };
      const files = await readBundle('config');
      at.answer = ({ url }) => (url.pathname === '/v1/bundle' ? { body: { files } } : denied);
      const { code, err } = await at.mayfly(...words);
      expect([code, err]).toEqual([3, expect.stringMatching(/No --type was given.*there are: refund, research\./)]);
      at.answer = () => denied;
      expect((await at.mayfly(...words)).err).toMatch(/No --type was given.*without one\./);
      expect((await at.mayfly('task', 'start', '--type', 'refund')).err).not.toContain('--type');
    },
  );

  it.each([
    ['<task>', ['task', 'complete', '']],
    ['<task>', ['task', 'context', '', 'risk=high']],
    ['<lock>', ['lock', 'lift', '']],
    ['<name>', ['secret', 'get', '', '--task', 'tsk_a_1']],
    ['--task', ['token', '--task', '', '--resource', 'https://orders.example']],
    ['--task', ['run', '--task', '', '--', 'true']],
    ['--task', ['lease', 'ls', '--task', '']],
    ['--parent', ['task', 'start', '--parent', '']],
    ['--agent', ['task', 'start', '--agent', '']],
    ['--as', ['--as', '', 'task', 'ls']],
  ])('an id that is empty is told by its place, %s, before anything is asked: %j', async (shown, words) => {
    const { code, err } = await at.mayfly(...words);
    expect([code, err]).toEqual([1, `Error: Nothing was done: ${shown} is empty.\n`]);
    expect(at.asked).toEqual([]);
  });

  it('a word of the command to run may be empty', async () => {
    at.answer = () => ({ body: TASK_OF_AN_HOUR });
    expect((await at.mayfly('run', '--', process.execPath, '-e', '', '')).code).toBe(0);
  });

  it('a secret that cannot be had now is told with its backend, and when to try again', async () => {
    at.answer = ({ method }) =>
      method === 'GET'
        ? { body: { items: [{ name: 'orders-db', backend: 'pg', open: false, problem: 'no route' }] } }
        : { status: 503, headers: { 'retry-after': '5' }, body: { code: 'unavailable', detail: 'Not right now.' } };
    const { code, err } = await at.mayfly(...GET);
    expect(code).toBe(2);
    expect(err).toMatch(
      /orders-db comes from the backend pg, which is closed for it: no route\.[\s\S]*Try again in 5 s\./,
    );
  });

  it.each([
    ['task', 'start'],
    ['task', 'complete', 'tsk_a_1'],
    ['task', 'suspend', 'tsk_a_1'],
    ['task', 'context', 'tsk_a_1', 'risk=high'],
  ])('a field that no task has is refused before anything is done: %s %s', async (...words) => {
    const { code, err } = await at.mayfly(...words, '--field', 'dead_line');
    expect([code, err]).toEqual([1, expect.stringMatching(/Nothing was done.*deadline/)]);
    expect(at.asked).toEqual([]);
  });

  it.each([
    ['stop', 'agent=/agent/refunds', '--reason', 'x', '--yes'],
    ['revoke', 'agent=/agent/refunds', '--reason', 'x', '--yes'],
    ['lock', 'lift', 'lck_a_1'],
    ['lease', 'renew', 'lse_a_1'],
    ['lease', 'revoke', 'lse_a_1'],
    ['lease', 'abandon', 'lse_a_1', '--reason', 'x'],
    ['key', 'prepare'],
    ['key', 'taint', 'k1', '--reason', 'x'],
    ['bundle', 'activate'],
    ['recover', '--reason', 'x'],
  ])('a field that no answer has is refused before anything is done: %s %s', async (...words) => {
    const { code, err } = await at.mayfly(...words, '--field', 'recipt');
    expect([code, err]).toEqual([1, expect.stringContaining('Nothing was done: there is no field recipt')]);
    expect(at.asked).toEqual([]);
  });

  it('the list of leases says of which task each is', async () => {
    at.answer = () => ({ body: { items: [{ id: 'lse_a_1', task: 'tsk_a_9' }] } });
    expect((await at.mayfly('lease', 'ls')).out).toMatch(/id +task +agent[\s\S]*lse_a_1 +tsk_a_9/);
  });

  it('the receipt of a stop can be asked for, and is printed bare', async () => {
    const preview = { agents: [], tasks: [], leases: 0, credentials: 0, resources: [], at_least: false };
    const revocation = { id: 'rev_a_1', done: true, receipt: 'a.b.c' };
    at.answer = ({ method }) => ({ body: method === 'GET' ? revocation : { preview, revocation, warnings: [] } });
    const { code, out } = await at.mayfly('stop', 'team=x', '--reason', 'x', '--yes', '--field', 'receipt');
    expect([code, out]).toEqual([0, 'a.b.c\n']);
  });

  it('a refusal is told with the command that explains it, as it is typed in a clone', async () => {
    at.answer = () => ({ status: 403, body: { code: 'denied', detail: 'no', decision_id: 'dec_a_1' } });
    expect((await at.mayfly('task', 'start')).err).toContain('Why: npx mayfly why dec_a_1');
  });

  it.each([
    [['task', 'start'], /The task was opened: tsk_a_1\n/],
    [['task', 'complete', 'tsk_a_1'], /The task is completed\.\n/],
    [['task', 'context', 'tsk_a_1', 'risk=high'], /The context was changed: generation 2\.\n/],
  ])('a field that this task has not is told after what was done: %j', async (words, said) => {
    const task = { id: 'tsk_a_1', state: 'completed', generation: 2 };
    at.answer = ({ url }) => ({ body: url.pathname.endsWith('/context') ? { task } : task });
    const { code, out, err } = await at.mayfly(...words, '--field', 'end_reason');
    expect([code, out]).toEqual([1, '']);
    expect(err).toMatch(said);
    expect(err).toMatch(/There is no field end_reason/);
  });

  it.each([
    ['5d', true],
    ['1h', false],
    ['5m', false],
  ])('a task of %s that is given an hour: said on standard error is %s', async (ttl, isSaid) => {
    const task = { id: 'tsk_a_1', created_at: '2030-01-01T00:00:00.000Z', deadline: '2030-01-01T01:00:00.000Z' };
    at.answer = () => ({ status: 201, body: task });
    const { code, out, err } = await at.mayfly('task', 'start', '--ttl', ttl, '--field', 'id');
    expect([code, out]).toEqual([0, 'tsk_a_1\n']);
    expect(err.includes(task.deadline)).toBe(isSaid);
  });

  it.each([
    ['5d', true],
    ['1h', false],
  ])('a command run for %s in a task that is given an hour: said on standard error is %s', async (ttl, isSaid) => {
    at.answer = () => ({ body: TASK_OF_AN_HOUR });
    const { code, err } = await at.mayfly('run', '--ttl', ttl, '--', process.execPath, '-e', '');
    expect([code, err.includes(`3600 s after it began, and not after ${ttl}`)]).toEqual([0, isSaid]);
  });

  it.each([
    ['1h', 600, 3_000, /lives for 600 s and not for 1h: the secret or policy allows no more/],
    ['1h', 600, 600, /lives for 600 s and not for 1h: its task ends at 2/],
    ['1h', 600, undefined, /lives for 600 s and not for 1h: the secret, policy or its task allows no more/],
    ['10m', 599, 3_000, /^$/],
  ])('a secret for %s that is given %i s, in a task of %i s, is told with why', async (ttl, given, left, said) => {
    at.answer = ({ method }) => {
      if (method === 'POST') return { body: { ...SECRET, lease_duration: given } };
      if (left === undefined) return { status: 404, body: { code: 'not_found' } };
      return { body: { id: 'tsk_a_1', deadline: new Date(Date.now() + left * 1_000).toISOString() } };
    };
    const { code, out, err } = await at.mayfly(...GET, '--ttl', ttl, '--field', 'data.password');
    expect([code, out]).toEqual([0, 'p\n']);
    expect(err).toMatch(said);
  });
});
