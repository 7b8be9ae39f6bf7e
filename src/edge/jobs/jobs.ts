import type { Parts } from '../../broker/parts.js';
import { reconcile } from '../../broker/reconcile.js';
import { watchTasks } from '../../broker/watch-task.js';
import { welcomeBack } from '../../broker/welcome-back.js';
import { work } from '../../broker/work.js';

/**
 * How often it is asked whose turn it is to reconcile. Much shorter than a turn: after a worker that died in its own the next one comes soon
 * enough for the 30 s that an orphan may live.
 */
const LOOK_EVERY_MS = 3_000;

/** Starts taking jobs (worker role). Each goes to its verb; one that failed stays due, and the sweeper brings it again. */
export function takeJobs(parts: Parts): Promise<void> {
  const backends = parts.backends.all();
  const hands = backends.map(({ name, bounds }) => ({ name, concurrency: bounds.revocationsMax }));
  for (const { name, guard } of backends) guard?.onBack(() => void welcomeBack(parts, name));
  return parts.schedule.start((job) => told(parts, { job: job.name, id: job.id }, () => work(parts, job)), {
    backends: hands,
    watch: (ids) => told(parts, { job: 'watch-task', count: ids.length }, () => watchTasks(parts, ids)),
  });
}

async function told(
  parts: Parts,
  about: { job: string; id?: string; count?: number },
  work: () => Promise<void>,
): Promise<void> {
  const startedAtMs = performance.now();
  try {
    await work();
    parts.observe({ event: 'job.done', level: 'debug', ...about, durationMs: performance.now() - startedAtMs });
  } catch (error) {
    const problem = error instanceof Error ? error.message : 'not an Error was thrown';
    const durationMs = performance.now() - startedAtMs;
    parts.observe({ event: 'job.failed', level: 'warn', ...about, problem, durationMs });
    throw error;
  }
}

/** Compares each backend with what is known of it, now and again (worker role). One that is slow holds up its own turn only. */
export function keepBooks(parts: Parts, signal: AbortSignal): NodeJS.Timeout[] {
  return parts.backends.all().map((backend) => {
    let isBusy = false;
    return setInterval(async () => {
      if (isBusy) return;
      isBusy = true;
      try {
        await reconcile(parts, backend, signal);
      } catch (error) {
        const problem = error instanceof Error ? error.message : 'not an Error was thrown';
        parts.observe({ event: 'reconcile.failed', level: 'warn', backend: backend.name, problem });
      } finally {
        isBusy = false;
      }
    }, LOOK_EVERY_MS);
  });
}
