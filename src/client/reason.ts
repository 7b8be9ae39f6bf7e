import { MayflyError } from './mayfly-error.js';

/** Why a request failed, in few words; never the request itself. Read by its parts: an error of another realm is none of our `Error`. */
export function reasonOf(error: unknown): string {
  if (error instanceof MayflyError) return error.hint === undefined ? error.message : `${error.message} ${error.hint}`;
  const { name, code, message, cause } = Object(error) as Record<string, unknown>;
  // An aborted request has the code of an abort, and why it was aborted is its cause.
  if (name === 'TimeoutError' || Object(cause).name === 'TimeoutError') return 'it took too long';
  if (name === 'AbortError') return 'it was called off';
  if (typeof code === 'string') return code;
  return typeof message === 'string' && message !== '' ? message : 'unknown';
}
