// npm run docs: writes what is generated from the code (docs/reference, the chart's schema). A test fails when they differ.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { orOneLine, prepare, ROOT } from './prepare.mjs';

await orOneLine(async () => {
  prepare();
  const { generatedFiles } = await import(new URL('../dist/main/reference.js', import.meta.url).href);
  for (const [name, content] of Object.entries(await generatedFiles())) {
    const path = join(ROOT, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
    process.stdout.write(`${name}\n`);
  }
});
