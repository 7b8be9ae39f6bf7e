import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { environmentOptions } from '../../../src/client/environment.js';
import { Mayfly } from '../../../src/client/mayfly.js';
import { InvalidRequest } from '../../../src/client/mayfly-error.js';

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

it('without an address it is the development broker that is up', () => {
  file('runtime.json', '{"url":"http://127.0.0.1:7117","pid":1}');
  expect(environmentOptions({ MAYFLY_DATA: dir }).url).toBe('http://127.0.0.1:7117');
});

it.each(['', '{}', '{"url":5}', 'null'])(
  'with a runtime file of %j there is no broker, and it says what to do',
  (text) => {
    file('runtime.json', text);
    expect(() => environmentOptions({ MAYFLY_DATA: dir })).toThrow(/MAYFLY_ADDR/);
  },
);

it('a JWT-SVID is read from its file each time, without the line end', async () => {
  const path = file('svid', 'one\n');
  const { identity } = environmentOptions({ MAYFLY_ADDR: 'x', MAYFLY_JWT_SVID_FILE: path });
  const bearer = () => (identity as { bearer(audience: string): Promise<string> }).bearer('a');
  expect(await bearer()).toBe('one');
  file('svid', 'two\n');
  expect(await bearer()).toBe('two');
});

it('a certificate is read from its files each time, and wins over a JWT-SVID', () => {
  const environment = {
    MAYFLY_ADDR: 'x',
    MAYFLY_CERT_FILE: file('cert', 'one'),
    MAYFLY_KEY_FILE: file('key', 'k'),
    MAYFLY_JWT_SVID_FILE: file('svid', 's'),
  };
  const identity = environmentOptions(environment).identity as { cert: string; key: string };
  expect([identity.cert, identity.key]).toEqual(['one', 'k']);
  file('cert', 'two');
  expect(identity.cert).toBe('two');
});

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
  const present = () => file('present', 'p');
  const call = async (environment: NodeJS.ProcessEnv) =>
    Mayfly.fromEnv({ MAYFLY_ADDR: 'https://127.0.0.1:1', ...environment }).leases.list();

  it.each([
    ['MAYFLY_CA_FILE', () => ({})],
    ['MAYFLY_JWT_SVID_FILE', () => ({})],
    ['MAYFLY_CERT_FILE', () => ({ MAYFLY_KEY_FILE: present() })],
    ['MAYFLY_KEY_FILE', () => ({ MAYFLY_CERT_FILE: present() })],
  ])('%s', async (variable, others) => {
    await expect(call({ ...others(), [variable]: NEVER })).rejects.toMatchObject({
      name: 'InvalidRequest',
      message: `${variable}: ${NEVER} cannot be read (ENOENT).`,
      hint: expect.stringContaining(`Set ${variable} to a file`),
    });
  });
});
