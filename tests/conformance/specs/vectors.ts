import { join, resolve } from 'node:path';

/** Other projects' vectors are not part of this one; they are used wherever the folder is. */
export function vectorsPath(name: string): string {
  return join(resolve(import.meta.dirname, '../../..'), '../shared/vectors', name);
}

/** Says in one line what did not run. */
export function missingVectors(what: string): void {
  process.stderr.write(`not run, no vectors here: ${what} (our own corpus ran)\n`);
}
