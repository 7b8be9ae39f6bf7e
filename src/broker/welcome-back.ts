import type { Parts } from './parts.js';

/** A backend answers again: what waited for it does not wait until its own next attempt. Should this be lost, that attempt comes all the same. */
export async function welcomeBack(parts: Parts, backend: string): Promise<void> {
  try {
    const { count } = await parts.ledger.hasten({ backend, nowMs: parts.clock.now() });
    parts.observe({ event: 'backend.back', backend, due: count });
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    parts.observe({ event: 'backend.back_unheard', level: 'warn', backend, problem });
  }
}
