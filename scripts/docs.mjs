// npm run docs: writes the generated pages of docs/reference from the code. A test fails when they differ.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { orOneLine, prepare, ROOT } from './prepare.mjs';

await orOneLine(async () => {
  prepare();
  const { referencePages } = await import(new URL('../dist/main/reference.js', import.meta.url).href);
  for (const [name, content] of Object.entries(await referencePages())) {
    const path = join(ROOT, 'docs/reference', name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
    process.stdout.write(`docs/reference/${name}\n`);
  }
});
