// npm start: installs and builds what is missing, then becomes `mayfly dev` with whatever arguments were given.
import { fileURLToPath } from 'node:url';
import { orOneLine, prepare } from './prepare.mjs';

await orOneLine(async () => {
  prepare();
  // In this very process: signals reach the broker once, and directly.
  process.argv.splice(1, 1, fileURLToPath(new URL('../bin/mayfly.js', import.meta.url)), 'dev');
  await import('../bin/mayfly.js');
});
