import { execFileSync } from 'node:child_process';

/** Adding a file here is the change under review: each is a place where a secret leaves its wrapper. */
const EXPOSES = [
  'src/client/task-secret.ts',
  'src/client/task-token.ts',
  'src/edge/http/routes/oauth.ts',
  'src/edge/http/routes/secrets.ts',
  'src/main/cli/run.ts',
  'src/main/cli/token.ts',
  'src/plugins/backends/oauth.ts',
  'src/plugins/backends/oauth/tokens.ts',
  'src/plugins/backends/oauth/upstream.ts',
  'src/plugins/backends/postgres.ts',
  'src/plugins/backends/postgres/check.ts',
  'src/plugins/backends/postgres/probe.ts',
  'src/plugins/backends/static.ts',
  'src/plugins/backends/vault/client.ts',
  'src/plugins/backends/vault/login.ts',
  'src/plugins/backends/vault/probe.ts',
  'src/state/encryption.ts',
];

describe('Secret', () => {
  it('is opened in the listed files and nowhere else', () => {
    const found = execFileSync('git', ['grep', '-l', '--untracked', '-F', '.expose()', '--', 'src'], {
      encoding: 'utf8',
    });
    const files = found.split('\n').filter((file) => file !== '' && file !== 'src/core/secret.ts');
    expect(files.sort()).toEqual(EXPOSES);
  });
});
