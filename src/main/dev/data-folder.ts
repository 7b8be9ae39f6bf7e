import { accessSync, constants, existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { BrokerError } from '../../core/errors.js';

/** Throws like `makeDataFolder` where that can be told without making anything. */
export function refuseDataFolder(dir: string): void {
  let nearest = dir;
  while (!existsSync(nearest)) nearest = dirname(nearest);
  try {
    mustBeWritable(nearest);
  } catch (cause) {
    throw unwritable(dir, cause);
  }
}

/** Step by step: Node's own recursive mkdir never comes back where a file system takes no folder although its parent is there (/proc). */
export function makeDataFolder(dir: string): void {
  try {
    if (existsSync(dir)) {
      mustBeWritable(dir);
      return;
    }
    if (!existsSync(dirname(dir))) makeDataFolder(dirname(dir));
    mkdirSync(dir, { mode: 0o700 });
  } catch (cause) {
    if (cause instanceof BrokerError) throw cause;
    throw unwritable(dir, cause);
  }
}

function unwritable(dir: string, cause?: unknown): BrokerError {
  return new BrokerError('unavailable', `The data folder ${dir} cannot be written. Choose another: --data DIR`, {
    cause,
  });
}

/** With a slash, a file is no folder. */
function mustBeWritable(dir: string): void {
  accessSync(`${dir}/`, constants.W_OK);
}
