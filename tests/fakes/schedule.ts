import type { Job, Schedule } from '../../src/state/stores.js';
import type { Line } from './line.js';

/**
 * Jobs are caught, not run: a test decides whether one is run, lost, repeated or late. `sweep` is the sweeper: everything due now, once
 * each, whatever became of the jobs.
 */
export class FakeSchedule implements Schedule {
  readonly #line: Line;
  #handle: ((job: Job) => Promise<void>) | undefined;
  readonly #running = new Set<string>();
  /** Jobs added and not yet run. */
  jobs: Job[] = [];
  /** What handlers threw, newest last. */
  failures: unknown[] = [];

  constructor(line: Line) {
    this.#line = line;
  }

  add(job: Job): void {
    this.jobs.push({ ...job });
  }

  /** A virtual clock brings tasks one at a time. */
  async start(handle: (job: Job) => Promise<void>): Promise<void> {
    this.#handle = handle;
  }

  due(): Job[] {
    const nowMs = this.#line.clock.now();
    return [...this.#line.state.due.values()]
      .filter((due) => due.atMs <= nowMs)
      .sort((a, b) => a.atMs - b.atMs)
      .map(({ job, id, backend }) => ({ name: job, id, ...(backend !== undefined && { backend }) }));
  }

  async sweep(): Promise<number> {
    const due = this.due();
    if (this.#handle) for (const job of due) await this.run(job);
    return due.length;
  }

  /** Runs all jobs waiting, also those that their handlers add, in the order they came. */
  async runJobs(): Promise<number> {
    let count = 0;
    for (let job = this.jobs.shift(); job; job = this.jobs.shift()) {
      await this.run(job);
      count++;
    }
    return count;
  }

  /** Runs one job as a worker does: never twice at once for one id, and a failure is left for the sweeper. */
  async run(job: Job): Promise<void> {
    const key = `${job.name}:${job.id}`;
    if (!this.#handle || this.#running.has(key)) return;
    this.#running.add(key);
    try {
      await this.#handle(job);
    } catch (error) {
      this.failures.push(error);
    } finally {
      this.#running.delete(key);
    }
  }

  async stop(): Promise<void> {
    this.#handle = undefined;
  }
}
