#!/usr/bin/env node
// In a clone, builds `dist` first when it is stale; an installed package holds no sources, and runs what it has.
import { existsSync } from 'node:fs';

const isClone = existsSync(new URL('../src/main/cli.ts', import.meta.url));
if (isClone) {
  const { orOneLine, prepare } = await import('../scripts/prepare.mjs');
  await orOneLine(() => prepare());
}
if (!process.exitCode) await import('../dist/main/cli.js');
