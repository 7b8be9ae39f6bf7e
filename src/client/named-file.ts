import { readFileSync } from 'node:fs';
import { InvalidRequest } from './mayfly-error.js';

/** A file that the environment names. Whoever set the variable is told of it by name, and what to do, when the file cannot be read. */
export function namedFile(variable: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    const { code = 'no reason was given' } = cause as NodeJS.ErrnoException;
    throw new InvalidRequest({
      code: 'invalid_request',
      status: 0,
      message: `${variable}: ${path} cannot be read (${code}).`,
      hint: `Set ${variable} to a file that this process may read, or unset it.`,
      cause,
    });
  }
}
