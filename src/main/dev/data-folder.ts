import { accessSync, constants, existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { BrokerError } from '../../core/errors.js';

/** Step by step: Node's own recursive mkdir never comes back where a file system takes no folder although its parent is there (/proc). */
export function makeDataFolder(dir: string): void {
  try {
    if (existsSync(dir)) {
      // With a slash, a file is no folder.
      accessSync(`${dir}/`, constants.W_OK);
      return;
    }
    if (!existsSync(dirname(dir))) makeDataFolder(dirname(dir));
    mkdirSync(dir, { mode: 0o700 });
  } catch (cause) {
    if (cause instanceof BrokerError) throw cause;
    throw new BrokerError('unavailable', `The data folder ${dir} cannot be written. Choose another: --data DIR`, {
      cause,
    });
  }
}
