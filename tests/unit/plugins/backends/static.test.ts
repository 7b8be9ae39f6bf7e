import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { newId } from '../../../../src/core/ids.js';
import { type Backend, BackendProblem } from '../../../../src/plugins/backends/contract.js';
import { staticBackend } from '../../../../src/plugins/backends/static.js';
import { type Installation, installation } from '../../../conformance/backends/deps.js';
import { everythingPrintable } from '../../../conformance/backends/lease.js';

const VALUE = 'canary-value-9b1d';
const SETTINGS = { value: 'pager', field: 'api_key' };

let dir: string;
let ours: Installation;
let backend: Backend;
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'mayfly-static-'));
  ours = await installation();
  backend = staticBackend.create(staticBackend.config.parse({ kind: 'static', dir }), ours.deps('keys')) as Backend;
  write(VALUE);
});
afterEach(() => rmSync(dir, { recursive: true }));

const write = (value: string, place = 'pager') => writeFileSync(join(dir, 'pager'), `${ours.encrypt(place, value)}\n`);

const issue = (more: Partial<Parameters<Backend['issue']>[0]> = {}) =>
  backend.issue({
    leaseId: newId('lse', 'a', Date.now()),
    settings: SETTINGS,
    handle: { value: 'pager' },
    expiresAtMs: Date.now() + 60_000,
    deadlineMs: Date.now() + 5_000,
    agent: 'spiffe://prod.example/agent/a',
    taskId: 'tsk_a_00000000000000000000000000',
    note: async () => undefined,
    signal: AbortSignal.timeout(5_000),
    ...more,
  });

function becomeFolder(): void {
  rmSync(join(dir, 'pager'));
  mkdirSync(join(dir, 'pager'));
}

const confirm = (handle: Record<string, string>) =>
  backend.confirm({ leaseId: 'lse_a_0', handle, expiresAtMs: Date.now() }, AbortSignal.timeout(5_000));

const check = () => backend.check({ name: 'pager', settings: SETTINGS }, AbortSignal.timeout(5_000));

describe('a standing value', () => {
  it('is handed out in its field, with a word of warning', async () => {
    const { data, warnings, renewable } = await issue();
    expect(data.expose()).toEqual({ api_key: VALUE });
    expect([renewable, warnings]).toEqual([false, [expect.stringContaining('until somebody changes it')]]);
  });

  it('keeps the lines and letters it was encrypted with', async () => {
    const pem = '-----BEGIN X-----\nä€😀\n-----END X-----\n\n';
    write(pem);
    expect((await issue()).data.expose()['api_key']).toBe(pem);
  });

  it('may lie behind a link, as Kubernetes mounts it', async () => {
    mkdirSync(join(dir, '..data'));
    writeFileSync(join(dir, '..data', 'linked'), ours.encrypt('linked', VALUE));
    symlinkSync(join('..data', 'linked'), join(dir, 'linked'));
    expect((await issue({ settings: { value: 'linked', field: 'value' } })).data.expose()).toEqual({ value: VALUE });
  });
});

describe('a rotation', () => {
  it('is seen by another value, and closes what was handed out before', async () => {
    const { handle } = await issue();
    const lease = { value: 'pager', ...handle };
    expect(await confirm(lease)).toEqual({ state: 'unknowable' });
    write(`${VALUE}-2`);
    expect(await confirm(lease)).toEqual({ state: 'gone' });
  });

  it('is not seen where the same value was encrypted again', async () => {
    const { handle } = await issue();
    write(VALUE);
    expect(await confirm({ value: 'pager', ...handle })).toEqual({ state: 'unknowable' });
  });

  it('what never left the broker needs none', async () => {
    expect(await confirm({ value: 'pager' })).toEqual({ state: 'gone' });
  });

  it('a value that cannot be read is no rotation', async () => {
    const { handle } = await issue();
    rmSync(join(dir, 'pager'));
    await expect(confirm({ value: 'pager', ...handle })).rejects.toMatchObject({ kind: 'misconfigured' });
  });

  it.each(['../pager', '/etc/passwd', '', '.hidden'])('a handle that names %j is not followed', async (value) => {
    await expect(confirm({ value, fingerprint: 'x' })).rejects.toMatchObject({ kind: 'failed', isSure: true });
  });

  it('its fingerprint is the same for the same value and says nothing of it', async () => {
    const [one, two] = [await issue(), await issue()];
    expect(one.handle).toEqual(two.handle);
    expect(JSON.stringify(one.handle)).not.toContain(VALUE);
    const others = await installation();
    expect(
      others.deps('keys').fingerprint('pager', ours.deps('keys').decrypt('pager', ours.encrypt('pager', VALUE))),
    ).not.toBe(one.handle['fingerprint']);
  });
});

describe('a value that cannot be used is named, and nothing of it shown', () => {
  it.each<[string, () => void, RegExp]>([
    ['is not there', () => rmSync(join(dir, 'pager')), /cannot be read \(ENOENT\)/],
    ['is a folder', becomeFolder, /is no file/],
    ['was never encrypted', () => writeFileSync(join(dir, 'pager'), VALUE), /another root key, cell or name/],
    ['is another’s', () => write(VALUE, 'maps'), /another root key, cell or name/],
    ['is empty', () => write(''), /is empty/],
    ['is larger than any', () => writeFileSync(join(dir, 'pager'), 'A'.repeat(70_000)), /at most 64 KiB/],
    [
      'was cut off',
      () => writeFileSync(join(dir, 'pager'), ours.encrypt('pager', VALUE).slice(0, 20)),
      /another root key/,
    ],
  ])('because it %s', async (_, spoil, said) => {
    spoil();
    expect(await check()).toEqual([expect.stringMatching(said)]);
    const error = await issue().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(BackendProblem);
    expect(error).toMatchObject({ kind: 'misconfigured', isSure: true });
    expect(everythingPrintable(error)).not.toContain(VALUE);
  });

  it('nothing is wrong with a good one', async () => expect(await check()).toEqual([]));
});
