import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import { brokerFromEnv, environmentOptions } from '../../../src/client/environment.js';
import type { BearerIdentity, CertificateIdentity } from '../../../src/client/identity.js';
import { Mayfly } from '../../../src/client/mayfly.js';
import { InvalidRequest } from '../../../src/client/mayfly-error.js';
import { openDevTrustDomain } from '../../../src/main/dev/trust-domain.js';

let dir: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'mayfly-environment-'));
});

afterEach(() => rmSync(dir, { recursive: true }));

function file(name: string, text: string): string {
  const path = join(dir, name);
  writeFileSync(path, text);
  return path;
}

it('the address and the issuer are what the environment says', () => {
  const options = environmentOptions({ MAYFLY_ADDR: 'https://b.example:7118', MAYFLY_ISSUER: 'https://b.example' });
  expect(options).toEqual({ url: 'https://b.example:7118', issuer: 'https://b.example' });
});

describe('what a tool needs of its broker', () => {
  it('is its address, its issuer and the tool’s own identity, read at each use', async () => {
    const svid = file('svid', 'a.b.c');
    const broker = brokerFromEnv({
      MAYFLY_ADDR: 'https://b.example:7118/',
      MAYFLY_ISSUER: 'https://b.example',
      MAYFLY_CA_FILE: file('ca.pem', 'the CA'),
      MAYFLY_JWT_SVID_FILE: svid,
    });
    expect(broker).toMatchObject({
      url: 'https://b.example:7118/',
      issuer: 'https://b.example',
      ca: Buffer.from('the CA'),
    });
    const { bearer } = broker.identity as BearerIdentity;
    expect(await bearer('https://b.example')).toBe('a.b.c');
    file('svid', 'd.e.f');
    expect(await bearer('https://b.example')).toBe('d.e.f');
  });

  it('has the address as its issuer where no other is named', () => {
    const environment = { MAYFLY_ADDR: 'http://b.example/', MAYFLY_JWT_SVID_FILE: file('svid', 'a.b.c') };
    expect(brokerFromEnv(environment).issuer).toBe('http://b.example');
  });

  it('is not there without an identity, and that is said with the variables to set', () => {
    expect(() => brokerFromEnv({ MAYFLY_ADDR: 'http://b.example' })).toThrow(
      new InvalidRequest({
        code: 'invalid_request',
        status: 0,
        message: 'No identity: set MAYFLY_JWT_SVID_FILE, or MAYFLY_CERT_FILE and MAYFLY_KEY_FILE.',
      }),
    );
  });
});

it('without an address it is the development broker that is up', () => {
  file('runtime.json', '{"url":"http://127.0.0.1:7117","pid":1}');
  expect(environmentOptions({ MAYFLY_DATA: dir }).url).toBe('http://127.0.0.1:7117');
});

it('without an address and a development broker it says where it looked, and what to do', () => {
  expect(() => environmentOptions({ MAYFLY_DATA: dir })).toThrow(
    `No broker: set MAYFLY_ADDR, or run mayfly dev (looked into ${dir}/runtime.json).`,
  );
});

it.each([
  ['', 'no JSON'],
  ['{"url":"htt', 'no JSON'],
  ['{}', 'it holds no url'],
  ['{"url":5}', 'it holds no url'],
  ['null', 'it holds no url'],
])('a runtime file of %j is named as damaged, with what to do', (text, why) => {
  const path = file('runtime.json', text);
  expect(() => environmentOptions({ MAYFLY_DATA: dir })).toThrow(
    expect.objectContaining({
      message: `No broker: ${path} is damaged (${why}).`,
      hint: expect.stringMatching(/npm start.*MAYFLY_ADDR/),
    }),
  );
});

it('a runtime file that cannot be read is named with the reason', () => {
  mkdirSync(join(dir, 'runtime.json'));
  expect(() => environmentOptions({ MAYFLY_DATA: dir })).toThrow(
    `${join(dir, 'runtime.json')} cannot be read (EISDIR)`,
  );
});

it('an empty variable says nothing', () => {
  file('runtime.json', '{"url":"http://127.0.0.1:7117","pid":1}');
  const names = ['ADDR', 'ISSUER', 'CA_FILE', 'JWT_SVID_FILE', 'CERT_FILE', 'KEY_FILE'];
  const empty = Object.fromEntries(names.map((name) => [`MAYFLY_${name}`, '']));
  expect(environmentOptions({ ...empty, MAYFLY_DATA: dir })).toEqual({ url: 'http://127.0.0.1:7117' });
});

it('a JWT-SVID is read from its file each time, without the line end', async () => {
  const path = file('svid', 'an.svid.one\n');
  const { identity } = environmentOptions({ MAYFLY_ADDR: 'x', MAYFLY_JWT_SVID_FILE: path });
  const bearer = () => (identity as { bearer(audience: string): Promise<string> }).bearer('a');
  expect(await bearer()).toBe('an.svid.one');
  file('svid', 'an.svid.two\n');
  expect(await bearer()).toBe('an.svid.two');
});

async function x509Svid(): Promise<{ certificatePem: string; keyPem: string }> {
  return (await openDevTrustDomain(dir)).x509Svid({ path: '/agent/x', ttlSeconds: 60 });
}

it('a certificate is read from its files each time, and wins over a JWT-SVID', async () => {
  const [one, two] = [await x509Svid(), await x509Svid()];
  const environment = {
    MAYFLY_ADDR: 'x',
    MAYFLY_CERT_FILE: file('cert', one.certificatePem),
    MAYFLY_KEY_FILE: file('key', one.keyPem),
    MAYFLY_JWT_SVID_FILE: file('svid', 's'),
  };
  const identity = environmentOptions(environment).identity as { cert: string; key: string };
  expect([identity.cert, identity.key]).toEqual([one.certificatePem, one.keyPem]);
  file('cert', two.certificatePem);
  file('key', two.keyPem);
  expect([identity.cert, identity.key]).toEqual([two.certificatePem, two.keyPem]);
  file('cert', 'half of one');
  const another = environmentOptions(environment).identity as { cert: string };
  expect(() => another.cert).toThrow(/MAYFLY_CERT_FILE: .*cert is not a certificate in PEM/);
});

it('while an SVID is rotated, file by file, the pair there was goes on; what stays broken is told', async () => {
  const [old, next] = [await x509Svid(), await x509Svid()];
  jest.useFakeTimers();
  try {
    jest.advanceTimersByTime(60_000);
    const files = { MAYFLY_CERT_FILE: file('cert', old.certificatePem), MAYFLY_KEY_FILE: file('key', old.keyPem) };
    const { identity } = environmentOptions({ MAYFLY_ADDR: 'https://x', ...files });
    const shown = () => [(identity as CertificateIdentity).cert, (identity as CertificateIdentity).key];
    const [ofOld, ofNext] = [old, next].map(({ certificatePem, keyPem }) => [certificatePem, keyPem]);
    expect(shown()).toEqual(ofOld);
    file('cert', next.certificatePem);
    expect(shown()).toEqual(ofOld);
    file('key', next.keyPem.slice(0, 60));
    expect(shown()).toEqual(ofOld);
    file('key', next.keyPem);
    expect(shown()).toEqual(ofNext);
    jest.advanceTimersByTime(60_000);
    file('key', old.keyPem);
    expect(shown()).toEqual(ofNext);
    jest.advanceTimersByTime(5_001);
    expect(shown).toThrow(/is not the key of the certificate/);
  } finally {
    jest.useRealTimers();
  }
});

it('a key that is not its certificate’s is told with both files, before anybody is connected to', async () => {
  const [one, two] = [await x509Svid(), await x509Svid()];
  const cert = file('cert', one.certificatePem);
  const key = file('key', two.keyPem);
  const environment = { MAYFLY_ADDR: 'https://127.0.0.1:1', MAYFLY_CERT_FILE: cert, MAYFLY_KEY_FILE: key };
  const list = () => Mayfly.fromEnv(environment).leases.list();
  await expect(list()).rejects.toMatchObject({
    name: 'InvalidRequest',
    message: expect.stringContaining(
      `MAYFLY_KEY_FILE: ${key} is not the key of the certificate in MAYFLY_CERT_FILE, ${cert}`,
    ),
  });
  file('cert', two.certificatePem);
  await expect(list()).rejects.toMatchObject({ code: 'unavailable' });
});

it('a certificate needs an address with TLS, and the start says so', () => {
  const read = () => environmentOptions({ MAYFLY_ADDR: 'http://x', MAYFLY_CERT_FILE: 'c', MAYFLY_KEY_FILE: 'k' });
  expect(read).toThrow(InvalidRequest);
  expect(read).toThrow(/needs an https address.*MAYFLY_ADDR/);
});

it.each(['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'SELF_SIGNED_CERT_IN_CHAIN'])(
  'a broker whose CA is not known here, %s, is told with the variable that names one',
  async (code) => {
    const fetch = () => Promise.reject(Object.assign(new Error('no'), { code }));
    const call = Mayfly.fromEnv({ MAYFLY_ADDR: 'https://x' }, { fetch }).leases.list();
    await expect(call).rejects.toMatchObject({ code: 'unavailable', hint: expect.stringContaining('MAYFLY_CA_FILE') });
  },
);

it.each([
  ['a certificate without its key', { MAYFLY_CERT_FILE: 'c' }],
  ['a key without its certificate', { MAYFLY_KEY_FILE: 'k', MAYFLY_JWT_SVID_FILE: 'j' }],
  ['a certificate whose key is named by nothing', { MAYFLY_CERT_FILE: 'c', MAYFLY_KEY_FILE: '' }],
])('%s stops the start, and both variables are named', (_, pair) => {
  const read = () => environmentOptions({ MAYFLY_ADDR: 'x', ...pair });
  expect(read).toThrow(InvalidRequest);
  expect(read).toThrow(/(MAYFLY_CERT_FILE|MAYFLY_KEY_FILE) is set and (?!\1)MAYFLY_(CERT|KEY)_FILE is not/);
});

describe('a file that is not there is told with its variable, its path and what to do', () => {
  const NEVER = '/nothing/is/here';
  const call = async (environment: NodeJS.ProcessEnv) =>
    Mayfly.fromEnv({ MAYFLY_ADDR: 'https://127.0.0.1:1', ...environment }).leases.list();

  it.each([
    ['MAYFLY_CA_FILE', () => ({})],
    ['MAYFLY_JWT_SVID_FILE', () => ({})],
    ['MAYFLY_CERT_FILE', () => ({ MAYFLY_KEY_FILE: NEVER })],
    ['MAYFLY_KEY_FILE', async () => ({ MAYFLY_CERT_FILE: file('cert', (await x509Svid()).certificatePem) })],
  ])('%s', async (variable, others) => {
    await expect(call({ ...(await others()), [variable]: NEVER })).rejects.toMatchObject({
      name: 'InvalidRequest',
      message: `${variable}: ${NEVER} cannot be read (ENOENT).`,
      hint: expect.stringContaining(`Set ${variable} to a file`),
    });
  });
});
