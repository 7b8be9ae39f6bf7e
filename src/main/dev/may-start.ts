import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { BrokerError } from '../../core/errors.js';
import { readYaml } from '../config.js';
import { readBundle } from '../read-bundle.js';
import { refuseDataFolder } from './data-folder.js';
import { refuseOwner } from './folder-owner.js';

interface WouldStart {
  dataDir: string;
  port: number;
  bundleDir: string;
  backendsFile?: string;
}

/**
 * Whether a development broker can start here: its folder can be written, nobody runs on it, its bundle and its backends can be read, and its ports are free
 * (0: any will do). For before anything is fetched, made or started: whoever has to choose another port should not wait to be told, nor find a folder
 * there. Throws a BrokerError with one line.
 */
export async function mayStart({ dataDir, port, bundleDir, backendsFile }: WouldStart): Promise<void> {
  refuseDataFolder(dataDir);
  refuseSecond(dataDir);
  refuseOwner(dataDir);
  await readBundle(bundleDir);
  if (backendsFile !== undefined) readYaml(backendsFile);
  if (port === 0) return;
  for (const one of [port, port + 1])
    await mustBeFree(one).catch((error: unknown) => Promise.reject(listening(error, port)));
}

/** One broker per data folder: a second one would hand out the same files to two processes. */
function refuseSecond(dataDir: string): void {
  let runtime: { pid?: unknown; url?: unknown };
  try {
    runtime = JSON.parse(readFileSync(join(dataDir, 'runtime.json'), 'utf8'));
  } catch {
    return;
  }
  const { pid, url } = runtime;
  if (typeof pid !== 'number' || pid === process.pid || !isAlive(pid)) return;
  throw new BrokerError(
    'unavailable',
    `Mayfly is already running here: ${String(url)} (process ${pid}). Stop it, or choose another folder: --data DIR`,
  );
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function mustBeFree(port: number): Promise<void> {
  const probe = createServer().listen(port, '127.0.0.1');
  await once(probe, 'listening');
  probe.close();
  await once(probe, 'close');
}

/** What went wrong with a port, in words that say what to do; anything else as it is. */
export function listening(error: unknown, port: number): unknown {
  const { code } = Object(error) as { code?: string };
  if (code === 'EADDRINUSE')
    return new BrokerError(
      'unavailable',
      `Port ${port} or ${port + 1} is taken. Choose another: --port N (0: any free one)`,
      { cause: error },
    );
  if (code === 'EACCES')
    return new BrokerError('unavailable', `Port ${port} may not be used by this user. Choose another: --port N`, {
      cause: error,
    });
  return error;
}
