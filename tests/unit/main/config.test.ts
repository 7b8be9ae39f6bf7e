import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BrokerError } from '../../../src/core/errors.js';
import { checkConfig, ENVIRONMENT, loadConfig, readRootKey } from '../../../src/main/config.js';

const TRUST = { trust_domains: [{ name: 'prod.example', source: { kind: 'file', path: '/bundle.json' } }] };
const LEAST = {
  issuer: 'https://mayfly.example',
  root_key_file: '/root.key',
  redis: { url: 'redis://redis.example:6379' },
  identity: TRUST,
};

/** Every problem that stops the start with this configuration. */
function problemsOf(written: unknown): string[] {
  try {
    checkConfig(written);
  } catch (error) {
    if (error instanceof BrokerError && error.code === 'invalid_request') return error.detail.problems ?? [];
    throw error;
  }
  return [];
}

const with_ = (more: object) => ({ ...LEAST, ...more });

describe('what has to be said', () => {
  it('is little: everything else has a safe default', () => {
    const config = checkConfig(LEAST);
    expect(config.listen).toEqual({ host: '127.0.0.1', port: 7117 });
    expect(config.tokens).toMatchObject({ ttl_seconds: 300, ttl_seconds_max: 900, operator_ttl_seconds: 300 });
    expect(config.identity.trust_domains[0]).toMatchObject({ svid_ttl_seconds_max: 900, lenient_eku: false });
  });

  it.each(['issuer', 'root_key_file', 'redis', 'identity'])('%s is required, by its name', (key) => {
    const { [key]: _, ...rest } = LEAST as Record<string, unknown>;
    expect(problemsOf(rest)).toEqual([`${key}: is required.`]);
  });

  it('what is there and of another kind is told as that, and not as missing', () => {
    const problems = problemsOf(with_({ listen: { port: '72a' }, cell: 7, backends: 'none' }));
    expect(problems).toEqual(expect.arrayContaining(['listen.port: must be a number.', 'cell: must be a string.']));
    expect(problems.join()).not.toContain('is required');
  });

  const loading = (source: Parameters<typeof loadConfig>[0]) => {
    try {
      loadConfig(source);
    } catch (error) {
      if (error instanceof BrokerError) return error;
      throw error;
    }
    throw new Error('it was read');
  };

  it('what comes from the environment is told with its variable, and that no file was named', () => {
    const { detail } = loading({ env: { MAYFLY_LISTEN_PORT: 'foo' } });
    expect(detail.problems).toContain('listen.port (MAYFLY_LISTEN_PORT): must be a number.');
    expect(detail.hint).toMatch(/--config <file>/);
  });

  it('a file that is no YAML is told with what is wrong, in a whole sentence', () => {
    const file = join(mkdtempSync(join(tmpdir(), 'mayfly-yaml-')), 'mayfly.yaml');
    writeFileSync(file, 'issuer: a: b\n');
    expect(loading({ file, env: {} }).message).toMatch(/mayfly\.yaml: .*line 1, column \d+\.$/);
  });

  it('every problem is named at once', () => {
    const problems = problemsOf(with_({ issuer: 'mayfly', cell: 'A', quotas: { per_tree: 0 } }));
    expect(problems.map((problem) => problem.split(':', 1)[0])).toEqual(['issuer', 'cell', 'quotas.per_tree']);
  });
});

describe('an unknown key is refused, and the right one is suggested', () => {
  it.each([
    [with_({ isuer: 'x' }), 'isuer: not a setting; did you mean "issuer"?'],
    [with_({ tokens: { ttl_second: 60 } }), 'tokens.ttl_second: not a setting; did you mean "ttl_seconds"?'],
    [with_({ quotas: { lease_per_task: 1 } }), 'quotas.lease_per_task: not a setting; did you mean "leases_per_task"?'],
    [
      with_({ identity: { ...TRUST, trust_domain: [] } }),
      'identity.trust_domain: not a setting; did you mean "trust_domains"?',
    ],
  ])('%#', (written, problem) => {
    expect(problemsOf(written)).toEqual([expect.stringContaining(problem)]);
  });

  it('without a guess where nothing is near', () => {
    expect(problemsOf(with_({ colour: 'green' }))).toEqual(['colour: not a setting']);
  });
});

describe('a dangerous setting stops the start, and says which', () => {
  it.each([
    ['issuer', { issuer: 'http://mayfly.example' }],
    ['issuer', { issuer: 'https://mayfly.example/' }],
    ['issuer', { issuer: 'https://user:secret@mayfly.example' }],
    ['identity', { identity: {} }],
    ['listen.tls', { issuer: 'http://127.0.0.1:7117', listen: { host: '0.0.0.0', port: 7117 } }],
    ['redis.url', { redis: { url: 'redis://user:secret@redis.example' } }],
    ['redis', { redis: { url: 'redis://a', url_file: '/b' } }],
    ['redis', { redis: {} }],
    ['tokens.ttl_seconds', { tokens: { ttl_seconds: 600, ttl_seconds_max: 300 } }],
    ['tokens.ttl_seconds_max', { tokens: { ttl_seconds_max: 901 } }],
    ['tokens.dpop_window_seconds', { tokens: { dpop_window_seconds: 3_600 } }],
    ['identity.trust_domains.0.source.url', { identity: trust({ kind: 'https_web', url: 'http://bundle.example' }) }],
    [
      'identity.oidc_issuers.0.keys',
      { identity: { ...TRUST, oidc_issuers: [{ kind: 'people', issuer: 'https://a.example', keys: {} }] } },
    ],
  ])('%s (%#)', (key, more) => {
    const problems = problemsOf(with_(more));
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(new RegExp(`^${key.replaceAll('.', '\\.')}: `));
    expect(problems[0]).not.toContain('secret@');
  });
});

function trust(source: object) {
  return { trust_domains: [{ name: 'prod.example', source }] };
}

describe('from file and environment', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'mayfly-config-'));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const written = (text: string, mode = 0o600) => {
    const path = join(dir, 'file');
    writeFileSync(path, text);
    chmodSync(path, mode);
    return path;
  };

  it('the environment wins over the file', () => {
    const file = written(JSON.stringify(with_({ listen: { host: '127.0.0.1', port: 1 } })));
    const env = { MAYFLY_LISTEN_PORT: '8443', MAYFLY_ISSUER: 'https://other.example', MAYFLY_CELL: '' };
    expect(loadConfig({ file, env })).toMatchObject({
      issuer: 'https://other.example',
      cell: 'a',
      listen: { host: '127.0.0.1', port: 8443 },
    });
  });

  it('every name of the environment is that of a setting', () => {
    for (const [name, path] of Object.entries(ENVIRONMENT)) {
      const problems = problemsOf(place(structuredClone(LEAST), path));
      expect({ name, problems: problems.filter((problem) => problem.includes('not a setting')) }).toEqual({
        name,
        problems: [],
      });
    }
  });

  it('a port that is no number is refused by its key', () => {
    const file = written(JSON.stringify(LEAST));
    expect(() => loadConfig({ file, env: { MAYFLY_LISTEN_PORT: 'http' } })).toThrow('1 problem');
  });

  it.each([
    ['a list', '- issuer'],
    ['broken YAML', 'issuer: [unclosed'],
    ['a key twice', 'issuer: https://a.example\nissuer: https://b.example'],
    ['a bomb of aliases', `a: &a [x]\n${'b: [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a]'}`],
  ])('%s is one clear line that names the file', (_, text) => {
    const file = written(text);
    try {
      loadConfig({ file, env: {} });
    } catch (error) {
      expect(error).toBeInstanceOf(BrokerError);
      expect((error as Error).message.split('\n')).toEqual([expect.stringContaining(file)]);
      return;
    }
    throw new Error('it was taken');
  });

  it('a file that is not there is one clear line', () => {
    expect(() => loadConfig({ file: join(dir, 'none.yaml'), env: {} })).toThrow(/none\.yaml/);
  });

  describe('the root key', () => {
    const bytes = Buffer.alloc(32, 7);

    it.each([
      ['base64', bytes.toString('base64')],
      ['hex', bytes.toString('hex')],
    ])('is 32 bytes in %s', (_, text) => {
      expect(Buffer.from(readRootKey(written(`${text}\n`)))).toEqual(bytes);
    });

    it.each([
      ['too short', bytes.subarray(1).toString('base64')],
      ['too long', Buffer.alloc(33).toString('base64')],
      ['empty', ''],
      ['a sentence', 'this is not a key at all, it is only text that is long enough'],
    ])('that is %s stops the start', (_, text) => {
      expect(() => readRootKey(written(text))).toThrow('root_key_file');
    });

    it.each(['604', '644', '666', '620'])('that others may read or change (%s) stops the start', (mode) => {
      expect(() => readRootKey(written(bytes.toString('hex'), Number.parseInt(mode, 8)))).toThrow(
        /root_key_file: .* chmod 600/,
      );
    });

    it('that the group may read is taken: that is how a pod gets it', () => {
      expect(Buffer.from(readRootKey(written(bytes.toString('hex'), 0o440)))).toEqual(bytes);
    });

    it('that is missing stops the start with the command that makes one', () => {
      expect(() => readRootKey(join(dir, 'none'))).toThrow('openssl rand -base64 32');
    });
  });
});

function place(into: Record<string, unknown>, path: readonly string[]): unknown {
  let at = into;
  for (const name of path.slice(0, -1)) {
    at[name] = { ...(at[name] as object) };
    at = at[name] as Record<string, unknown>;
  }
  at[path.at(-1) as string] = 'value';
  return into;
}
