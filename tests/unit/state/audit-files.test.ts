import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AuditFiles } from '../../../src/state/audit-files.js';

describe('the files of audit records', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'mayfly-audit-'));
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  const record = (id: string) => JSON.stringify({ id, atMs: 1, type: 'task.opened', actor: { workload: 'ö\u2028"' } });
  const open = () => new AuditFiles(dir, 'a', 1_000);
  const idsIn = (files: AuditFiles) => [...files.before(undefined)].map(({ record }) => record.id);

  it('give back what was appended, newest first, whatever characters are in it', async () => {
    const files = open();
    await files.append([1, 2, 3].map((at) => ({ streamId: `${at}-0`, text: record(`dec_${at}`) })));
    expect([...files.before(undefined)][0]).toEqual({ streamId: '3-0', record: JSON.parse(record('dec_3')) });
    expect(idsIn(files)).toEqual(['dec_3', 'dec_2', 'dec_1']);
    expect(files.last()).toBe('3-0');
    files.close();
  });

  it('go on after a line that a crash cut, and lose nothing that is whole', async () => {
    const before = open();
    await before.append([{ streamId: '1-0', text: record('dec_1') }]);
    before.close();
    const path = join(dir, 'audit/a', readdirSync(join(dir, 'audit/a'))[0] as string);
    appendFileSync(path, '{"at":"2-0","record":{"id":"dec_');
    const after = open();
    expect(after.last()).toBe('1-0');
    // The same place as that of the file's name, so that the same file goes on.
    await after.append([
      { streamId: '1-0', text: record('dec_1b') },
      { streamId: '2-0', text: record('dec_2') },
    ]);
    expect(idsIn(after)).toEqual(['dec_2', 'dec_1b', 'dec_1']);
    expect(readFileSync(path, 'utf8').split('\n')).toHaveLength(5);
    after.close();
  });
});
