import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { generatedFiles } from '../../src/main/reference.js';

describe('what is generated', () => {
  for (const [name, content] of Object.entries(generatedFiles())) {
    it(`${name} is what the code says (npm run docs)`, () => {
      expect(existsSync(name) ? readFileSync(name, 'utf8') : 'missing').toBe(content);
    });
  }
});

describe('what the README has its readers save in a clone', () => {
  const readme = readFileSync('README.md', 'utf8');
  const saved = [...readme.matchAll(/^<!-- test: (\S+\.\w+) -->$|^npx .* > ([\w.-]+)$/gm)].map(
    ([, listed, written]) => (listed ?? written) as string,
  );
  const ignored = readFileSync('.gitignore', 'utf8').split('\n');

  it.each(saved)('%s is ignored by Git, and so by `npm run check`', (name) => {
    expect(ignored.some((line) => line === `/${name}` || line === name.replace(/^.*(?=\.)/, '*'))).toBe(true);
  });

  it('is found here', () => {
    expect(saved).toEqual(expect.arrayContaining(['agent.mjs', 'agent.svid', 'receipt.jwt']));
  });
});

describe('a page that the code names', () => {
  const below = (folder: string) =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name));
  const pages = new Set([...readdirSync('.'), ...['docs', 'tests'].flatMap(below)].map((path) => basename(path)));
  /** Standards, by the names of their pages. */
  const SPIFFE = /^(SPIFFE|JWT-SVID|X509-SVID)/;

  it.each(['src', 'tests', 'scripts'])('is in the tree: %s', (folder) => {
    const missing = below(folder)
      .filter((path) => /\.(ts|mjs|lua|sh)$/.test(path))
      .flatMap((path) =>
        [...readFileSync(path, 'utf8').matchAll(/[\w-]+\.md\b/g)]
          .filter(([name]) => !pages.has(name) && !SPIFFE.test(name))
          .map(([name]) => `${path} names ${name}`),
      );
    expect(missing).toEqual([]);
  });
});
