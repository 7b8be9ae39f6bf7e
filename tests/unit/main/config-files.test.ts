import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { checkConfig } from '../../../src/main/config.js';
import { fileProblems } from '../../../src/main/config-files.js';
import { openDevTrustDomain } from '../../../src/main/dev/trust-domain.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'mayfly-config-files-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

let tls: { certificatePem: string; keyPem: string };
let otherKeyPem: string;
beforeAll(async () => {
  const issued = mkdtempSync(join(tmpdir(), 'mayfly-config-pairs-'));
  const trustDomain = await openDevTrustDomain(issued);
  tls = await trustDomain.x509Svid({ path: '/broker', ttlSeconds: 60 });
  otherKeyPem = (await trustDomain.x509Svid({ path: '/broker', ttlSeconds: 60 })).keyPem;
  rmSync(issued, { recursive: true });
});

const KEY = Buffer.alloc(32, 1).toString('base64');

const config = () => {
  const at = (name: string) => join(dir, name);
  return checkConfig({
    issuer: 'https://mayfly.example',
    root_key_file: at('root.key'),
    redis: { url_file: at('redis.url') },
    listen: { port: 7117, tls: { cert_file: at('tls.pem'), key_file: at('tls.key') } },
    identity: { trust_domains: [{ name: 'prod.example', source: { kind: 'file', path: at('trust.json') } }] },
    backends: {
      orders: { kind: 'postgres', host: '127.0.0.1', managers: [{ user: 'one', password_file: at('one.password') }] },
      keys: { kind: 'static', dir: at('keys') },
    },
    bundle: { dir: at('bundle') },
  });
};

const put = (name: string, text = 'x', mode = 0o600) => writeFileSync(join(dir, name), text, { mode });

function putAll(): void {
  put('root.key', KEY);
  put('redis.url', 'redis://127.0.0.1:6379');
  put('tls.pem', tls.certificatePem);
  put('tls.key', tls.keyPem);
  for (const name of ['trust.json', 'one.password']) put(name);
  for (const name of ['keys', 'bundle', 'bundle/policies']) mkdirSync(join(dir, name));
  put('bundle/policies/agents.cedar', '');
}

describe('the files that a configuration names', () => {
  it('are nothing to complain about when they are there', async () => {
    putAll();
    expect(await fileProblems(config())).toEqual([]);
  });

  it('are all named by their keys when they are missing', async () => {
    const problems = await fileProblems(config());
    expect(problems.map((problem) => problem.split(': ', 1)[0]).sort()).toEqual([
      'backends.keys.dir',
      'backends.orders.managers.0.password_file',
      'bundle.dir',
      'identity.trust_domains.0.source.path',
      'listen.tls.cert_file',
      'listen.tls.key_file',
      'redis.url_file',
      'root_key_file',
    ]);
  });

  it('a folder without a policy is no bundle, whatever else is in it', async () => {
    putAll();
    rmSync(join(dir, 'bundle/policies'), { recursive: true });
    mkdirSync(join(dir, 'bundle/agents'));
    put('bundle/agents/a.yaml');
    expect(await fileProblems(config())).toEqual([
      expect.stringMatching(/^bundle\.dir: .*bundle.* holds no policy \(policies\/\*\.cedar\)/),
    ]);
  });

  it.each([
    [
      'a root key that others may read',
      () => put('other.key', KEY, 0o644),
      'root_key_file',
      'other.key',
      /^root_key_file: .* by others/,
    ],
    [
      'a root key that is none',
      () => put('other.key', 'short'),
      'root_key_file',
      'other.key',
      /^root_key_file: .* 32 bytes/,
    ],
  ])('%s is a problem', async (_, make, key, name, problem) => {
    putAll();
    make();
    expect(await fileProblems({ ...config(), [key]: join(dir, name) })).toEqual([expect.stringMatching(problem)]);
  });

  it('a key that is not its certificate’s is a problem, told with both files: of a listener and of a backend', async () => {
    putAll();
    put('tls.key', otherKeyPem);
    const pair = { cert_file: join(dir, 'tls.pem'), key_file: join(dir, 'tls.key') };
    const { listen, backends, ...rest } = config();
    const orders = { ...backends['orders'], tls: pair } as (typeof backends)[string];
    const files = `.key_file: ${pair.key_file} is not the key of the certificate in`;
    expect(await fileProblems({ ...rest, listen, backends: { orders } })).toEqual([
      `listen.tls${files} listen.tls.cert_file, ${pair.cert_file}: name two that belong together.`,
      `backends.orders.tls${files} backends.orders.tls.cert_file, ${pair.cert_file}: name two that belong together.`,
    ]);
  });

  it.each([
    ['cert_file', 'tls.pem', 'certificate'],
    ['key_file', 'tls.key', 'private key'],
  ])('a %s that is none is a problem, and what it holds is not shown', async (name, file, kind) => {
    putAll();
    put(file, 'hunter2');
    expect(await fileProblems(config())).toEqual([`listen.tls.${name}: ${join(dir, file)} holds no ${kind} in PEM.`]);
  });

  it('a folder where a file is named, and a file where a folder is named, are problems', async () => {
    putAll();
    for (const name of ['tls.key', 'keys']) rmSync(join(dir, name), { recursive: true });
    mkdirSync(join(dir, 'tls.key'));
    put('keys');
    expect(await fileProblems(config())).toEqual([
      `listen.tls.key_file: ${join(dir, 'tls.key')} is a folder.`,
      `backends.keys.dir: ${join(dir, 'keys')} is no folder.`,
    ]);
  });
});
