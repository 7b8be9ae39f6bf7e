import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { InvalidRequest } from './mayfly-error.js';

/** What `mayfly dev` writes down once it is up. */
export interface DevelopmentBroker {
  url: string;
  mtls_url: string;
  issuer: string;
  pid: number;
}

/** The development broker that runs on a data folder; undefined when none does. Throws InvalidRequest when its file cannot be read, or is damaged. */
export function developmentBroker(dataDir: string): DevelopmentBroker | undefined {
  const path = join(dataDir, 'runtime.json');
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    const { code = 'no reason was given' } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw unusable(`${path} cannot be read (${code})`, cause);
  }
  try {
    const found: unknown = JSON.parse(text);
    if (typeof (found as Partial<DevelopmentBroker> | null)?.url === 'string') return found as DevelopmentBroker;
  } catch (cause) {
    throw unusable(`${path} is damaged (no JSON)`, cause);
  }
  throw unusable(`${path} is damaged (it holds no url)`);
}

function unusable(what: string, cause?: unknown): InvalidRequest {
  return new InvalidRequest({
    code: 'invalid_request',
    status: 0,
    message: `No broker: ${what}.`,
    hint: 'It is how a development broker is found: start that one anew (npm start), which writes it again, or set MAYFLY_ADDR.',
    cause,
  });
}
