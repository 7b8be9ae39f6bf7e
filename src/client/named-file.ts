import { createPrivateKey, X509Certificate } from 'node:crypto';
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

const JWT = /^[\w-]+\.[\w-]+\.[\w-]+$/;

/** The token that a file holds, without the line end; anything else would be told as a broker that does not answer. */
export function jwtFile(variable: string, path: string): string {
  const text = namedFile(variable, path).toString('utf8').trim();
  if (!JWT.test(text)) throw otherForm(variable, path, text, 'a JWT (three base64url parts with a dot between)');
  return text;
}

/** Reads a PEM file at each use; its form is looked at again when it has changed. */
export function pemFile(variable: string, path: string, kind: 'certificate' | 'private key'): () => string {
  let goodText: string | undefined;
  return () => {
    const text = namedFile(variable, path).toString('utf8');
    if (text === goodText) return text;
    try {
      if (kind === 'certificate') new X509Certificate(text);
      else createPrivateKey(text);
    } catch {
      throw otherForm(variable, path, text, `a ${kind} in PEM`);
    }
    goodText = text;
    return text;
  };
}

/** What the file holds is not shown: it may be a secret of another kind. */
function otherForm(variable: string, path: string, text: string, expected: string): InvalidRequest {
  const found = text.trim() === '' ? 'is empty' : `is not ${expected}`;
  return new InvalidRequest({
    code: 'invalid_request',
    status: 0,
    message: `${variable}: ${path} ${found}.`,
    hint: `Set ${variable} to a file that holds ${expected}, or unset it.`,
  });
}
