import type { Parts } from '../../broker/parts.js';
import { work } from '../../broker/work.js';

type Job = Parameters<Parameters<Parts['schedule']['start']>[0]>[0];

/**
 * How many of each job one process does at a time; the schedule keeps to it. Drains and revocations are what somebody waits for;
 * judging again costs policy decisions, and a whole bundle is judged once.
 *
 * @internal exported for its test
 */
export const JOB_CONCURRENCY: Record<Job['name'], number> = {
  'drain-task': 8,
  're-evaluate-task': 4,
  're-evaluate-bundle': 1,
  'run-revocation': 2,
  'watch-task': 8,
  'retire-credential': 8,
};

/** Starts taking jobs (worker role). Each goes to its verb; one that failed stays due, and the sweeper brings it again. */
export function takeJobs(parts: Parts): Promise<void> {
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
  });
}
