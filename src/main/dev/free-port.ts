import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';

/**
 * Below what systems give to outgoing connections (32768 and up on Linux, 49152 elsewhere): whoever listens a moment later does not find that a
 * connection of somebody else has taken the port meanwhile.
 */
const [FIRST, LAST] = [20_000, 32_767];
const TRIES_MAX = 100;

/** A port of loopback that was free a moment ago. */
export async function freePort(): Promise<number> {
  for (let tries = 1; ; tries++) {
    const port = randomInt(FIRST, LAST + 1);
    const server = createServer().listen(port, '127.0.0.1');
    try {
      await once(server, 'listening');
      return port;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || tries === TRIES_MAX) throw error;
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  }
}
