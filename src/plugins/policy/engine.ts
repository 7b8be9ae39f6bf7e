import './v8-flag.js';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { compileFunction } from 'node:vm';
import type * as Cedar from '@cedar-policy/cedar-wasm/nodejs';

/**
 * Cedar's engine is compiled to WebAssembly and has a small stack of its own. Measured on 4.13: an exception thrown out of a call
 * leaves what the call had on that stack there for ever, so that after some 1,450 of them every call fails; a policy nested a few
 * hundred levels deep runs over its end, and every later call fails too. Nothing that throws should reach it (question.ts cleans
 * what is asked, policy-text.ts bounds what is loaded); whatever throws all the same costs one instance, never the process' ability
 * to decide. This is the only module that loads it.
 */
export type Engine = typeof Cedar;

/** Far below the measured number, far above what chance could bring. */
const THROWN_MAX = 200;

const require = createRequire(import.meta.url);
const ENTRY = require.resolve('@cedar-policy/cedar-wasm/nodejs');
const SOURCE = readFileSync(ENTRY, 'utf8');

/**
 * Runs the package's CommonJS file as `require` does, but anew each time: the file makes its instance when it runs. (Dropping it
 * from the cache of `require` does the same where that cache is Node's, which it is not under a test runner.)
 */
function freshInstance(): Engine {
  const made = {};
  compileFunction(SOURCE, ['exports', 'require', '__dirname'], { filename: ENTRY })(made, require, dirname(ENTRY));
  return made as Engine;
}

let instance = freshInstance();
let thrown = 0;
let number = 0;

/** Which instance answers: what was prepared in an earlier one has to be prepared again. */
export function engineNumber(): number {
  return number;
}

/** One use of the engine. What it throws goes on to the caller, and an instance that is or soon will be broken is replaced. */
export function withEngine<Answer>(use: (engine: Engine) => Answer): Answer {
  try {
    return use(instance);
  } catch (cause) {
    thrown += 1;
    if (thrown >= THROWN_MAX || isFatal(cause)) {
      instance = freshInstance();
      number += 1;
      thrown = 0;
    }
    throw cause;
  }
}

/** The instance's stack was overrun. By name: an error of the instance may belong to another realm. */
function isFatal(cause: unknown): boolean {
  const name = (cause as { name?: unknown } | null)?.name;
  return name === 'RuntimeError' || name === 'RangeError';
}
