import { BackendProblem } from '../contract.js';

/** One segment of a path: nothing that a URL, a proxy or a Vault reads as anything but a name (`..`, `%2f`, `?`, `#`, `//`). */
const SEGMENT = /^[A-Za-z0-9_](?:[A-Za-z0-9_.@+~-]{0,126}[A-Za-z0-9_])?$/;

const SEGMENTS_MAX = 16;

/** A path at a Vault as an operator writes it: `team/database`, no slash at its ends. */
export function isVaultPath(path: string): boolean {
  const segments = path.split('/');
  return segments.length <= SEGMENTS_MAX && segments.every((segment) => SEGMENT.test(segment));
}

export const PATH_RULE =
  'has to be names of letters, digits and "_.@+~-" with "/" between them, such as team/database (no slash at its ends)';

/**
 * The only way to a path of a request: parts that are paths themselves, each segment checked and encoded. What comes from a handle or from a reply is
 * checked here again, so a name with a slash or a dot segment never reaches another endpoint.
 */
export function vaultPath(...parts: string[]): string {
  const path = parts.join('/');
  if (!isVaultPath(path)) {
    throw new BackendProblem('misconfigured', 'a path has a segment that is no plain name', { isSure: true });
  }
  return path.split('/').map(encodeURIComponent).join('/');
}

/** Where the versions of a KV value are, by where it is read: `secret/data/x`, `secret/metadata/x`. */
export function metadataOf(place: string): string {
  return place.replace('/data/', '/metadata/');
}

/** The path of a LIST, which ends with a slash. */
export function vaultFolder(...parts: string[]): string {
  return `${vaultPath(...parts)}/`;
}
