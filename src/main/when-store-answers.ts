import { setTimeout as delay } from 'node:timers/promises';
import { BrokerError } from '../core/errors.js';
import type { Observe } from '../core/observe.js';

const TRIES_MAX = 30;
const AGAIN_MS = 1_000;

/**
 * Starts what needs the store. A store that is not there yet is waited for (processes of one deployment start in any order), and so is one whose
 * answers come too late on a busy machine. Throws the last problem after 30 tries, or when it is told to stop.
 */
export async function whenStoreAnswers<Made>(
  observe: Observe,
  start: () => Promise<Made>,
  stopping?: AbortSignal,
): Promise<Made> {
  for (let tries = 1; ; tries++) {
    try {
      return await start();
    } catch (error) {
      if (!(error instanceof BrokerError) || error.code !== 'unavailable' || tries === TRIES_MAX) throw error;
      observe({ event: 'start.waits', level: 'warn', reason: error.detail.reason ?? error.message, tries });
      await delay(AGAIN_MS, undefined, stopping && { signal: stopping }).catch(() => {});
      if (stopping?.aborted) throw error;
    }
  }
}
