import { readFileSync } from 'node:fs';
import { UsageError } from './output.js';

/** A file that the environment names. Whoever set the variable is told of it by name when the file cannot be read. */
export function namedFile(variable: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    const { code = 'it cannot be read' } = cause as NodeJS.ErrnoException;
    throw new UsageError(`${variable}: ${path} cannot be read (${code}).`, { cause });
  }
}
