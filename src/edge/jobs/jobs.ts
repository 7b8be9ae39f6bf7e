import type { Parts } from '../../broker/parts.js';
import { welcomeBack } from '../../broker/welcome-back.js';
import { work } from '../../broker/work.js';

/** Starts taking jobs (worker role). Each goes to its verb; one that failed stays due, and the sweeper brings it again. */
export function takeJobs(parts: Parts): Promise<void> {
  const backends = parts.backends.all();
  const hands = backends.map(({ name, bounds }) => ({ name, concurrency: bounds.revocationsMax }));
  for (const { name, guard } of backends) guard?.onBack(() => void welcomeBack(parts, name));
  return parts.schedule.start(async (job) => {
    const startedAtMs = performance.now();
    const about = { job: job.name, id: job.id };
    try {
      await work(parts, job);
      parts.observe({ event: 'job.done', level: 'debug', ...about, durationMs: performance.now() - startedAtMs });
    } catch (error) {
      const problem = error instanceof Error ? error.message : 'not an Error was thrown';
      const durationMs = performance.now() - startedAtMs;
      parts.observe({ event: 'job.failed', level: 'warn', ...about, problem, durationMs });
      throw error;
    }
  }, hands);
}
