import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { Queue, Worker } from 'bullmq';
import type { Cell } from './cell.js';
import { readDue } from './due.js';
import { connect, type RedisClient, type RedisUrl } from './redis.js';
import type { Job, JobName, Schedule } from './stores.js';

type Handle = (job: Job) => Promise<void>;

/** Queues: work that somebody waits for does not queue behind work that takes long. Each has its own workers in a process. */
const LANES = {
  drain: { jobs: ['drain-task', 'watch-task'], concurrency: 8 },
  judge: { jobs: ['re-evaluate-task', 're-evaluate-bundle'], concurrency: 4 },
  revoke: { jobs: ['run-revocation'], concurrency: 2 },
  retire: { jobs: ['retire-credential'], concurrency: 16 },
} as const satisfies Record<string, { jobs: readonly JobName[]; concurrency: number }>;

type LaneName = keyof typeof LANES;

const LANE_OF = new Map<string, LaneName>(
  (Object.keys(LANES) as LaneName[]).flatMap((lane) => LANES[lane].jobs.map((job) => [job, lane] as const)),
);

const PAGE = 500;
/** What the sweeper takes comes back after this, should its taker die. */
const CLAIM_MS = 10_000;
const LOCK_MS = 5_000;
const STALLED_EVERY_MS = 2_000;
/** BullMQ's default of 15 s would leave the queue without hands that long after Redis is back, and hold the process open. */
const RETRY_MS = 250;
/** How long one blocking wait for a job lasts; a wait on a lost connection ends a second after that. */
const IDLE_SECONDS = 1;
const CLOSE_TIMEOUT_MS = 2_000;
const WATCH_EVERY_MS = 5_000;
const NO_PROGRESS_MS = 10_000;
/** More errors than this in one second, and a worker makes way for the sweeper for a while (F6: a full Redis makes workers spin). */
const ERRORS_PER_SECOND_MAX = 10;
const BACK_OFF_MS = 5_000;
const BACK_OFF_MS_MAX = 30_000;
const ADDS_WAITING_MAX = 10_000;

/** One queue's worker in this process, replaceable. */
interface Lane {
  name: LaneName;
  queue: Queue;
  worker: Worker | undefined;
  active: number;
  progressAtMs: number;
  errors: { sinceMs: number; count: number };
  backOffMs: number;
  replacing: boolean;
}

/**
 * Hands for due work. The truth is the due index in the cell (every script that makes something due writes it there): a BullMQ job for it is a
 * quick messenger that may be lost, repeated or late, and the sweeper comes for whatever no job has settled in time (DESIGN.md 5).
 */
export class RedisSchedule implements Schedule {
  readonly #cell: Cell;
  readonly #url: RedisUrl;
  readonly #prefix: string;
  readonly #producer: RedisClient;
  readonly #queues: Record<LaneName, Queue>;
  readonly #running = new Set<string>();
  #consumer: RedisClient | undefined;
  #lanes: Lane[] = [];
  #handle: Handle | undefined;
  #sweeping: Promise<void> | undefined;
  #watchTimer: NodeJS.Timeout | undefined;
  #adding = 0;
  #stopped = false;
  readonly #stop = new AbortController();

  /** `producer` fails fast; jobs of this process and of others go through it. */
  constructor(cell: Cell, url: RedisUrl, producer: RedisClient, prefix: string) {
    this.#cell = cell;
    this.#url = url;
    this.#producer = producer;
    this.#prefix = prefix;
    const queueOf = (name: LaneName) => this.#queueOf(name);
    this.#queues = {
      drain: queueOf('drain'),
      judge: queueOf('judge'),
      revoke: queueOf('revoke'),
      retire: queueOf('retire'),
    };
  }

  add(job: Job): void {
    const lane = LANE_OF.get(job.name);
    // Above this many unanswered adds Redis is not keeping up: the sweeper finds the work in the due index.
    if (lane === undefined || this.#stopped || this.#adding >= ADDS_WAITING_MAX) return;
    this.#adding += 1;
    // A fresh id each time: an id that a finished job still holds would be ignored without a word (F4).
    const jobId = `${job.id.replaceAll(':', '.')}-${randomBytes(6).toString('hex')}`;
    this.#queues[lane]
      .add(job.name, { id: job.id }, { jobId, attempts: 1, removeOnComplete: true, removeOnFail: true })
      .catch(() => {})
      .finally(() => {
        this.#adding -= 1;
      });
  }

  async start(handle: Handle): Promise<void> {
    this.#handle = handle;
    this.#consumer = connect(this.#url, 'waiting', this.#cell.observe);
    this.#lanes = (Object.keys(LANES) as LaneName[]).map((name) => ({
      name,
      queue: this.#queues[name],
      worker: undefined,
      active: 0,
      progressAtMs: performance.now(),
      errors: { sinceMs: 0, count: 0 },
      backOffMs: BACK_OFF_MS,
      replacing: false,
    }));
    for (const lane of this.#lanes) this.#employ(lane);
    this.#sweeping = this.#sweepOn();
    this.#watchTimer = setInterval(() => void this.#watch(), WATCH_EVERY_MS);
  }

  async sweep(): Promise<number> {
    const nowMs = this.#cell.clock.now();
    if (!this.#handle) return this.#countDue(nowMs);
    let count = 0;
    for (;;) {
      const page = await this.#claim(nowMs);
      await this.#runAll(page);
      count += page.length;
      if (page.length < PAGE) return count;
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#stop.abort();
    clearInterval(this.#watchTimer);
    await Promise.all(this.#lanes.map((lane) => dismiss(lane.worker)));
    await this.#sweeping;
    await Promise.all(Object.values(this.#queues).map((queue) => withTimeLimit(queue.close())));
    this.#consumer?.disconnect();
    this.#handle = undefined;
  }

  #queueOf(name: LaneName): Queue {
    const queue = new Queue(name, { connection: this.#producer, prefix: this.#prefix, skipVersionCheck: true });
    queue.on('error', () => {});
    return queue;
  }

  #employ(lane: Lane): void {
    const worker = new Worker(
      lane.name,
      async (job) => {
        lane.active += 1;
        lane.progressAtMs = performance.now();
        try {
          await this.#run({ name: job.name as JobName, id: String((job.data as { id?: unknown }).id) });
        } finally {
          lane.active -= 1;
          lane.progressAtMs = performance.now();
          lane.backOffMs = BACK_OFF_MS;
        }
      },
      {
        connection: this.#consumer as RedisClient,
        prefix: this.#prefix,
        skipVersionCheck: true,
        concurrency: LANES[lane.name].concurrency,
        lockDuration: LOCK_MS,
        stalledInterval: STALLED_EVERY_MS,
        maxStalledCount: 1,
        runRetryDelay: RETRY_MS,
        drainDelay: IDLE_SECONDS,
        removeOnComplete: { count: 0 },
        removeOnFail: { count: 0 },
      },
    );
    worker.on('error', (error) => this.#onError(lane, error));
    lane.worker = worker;
  }

  #onError(lane: Lane, error: Error): void {
    const nowMs = performance.now();
    if (nowMs - lane.errors.sinceMs > 1_000) {
      lane.errors = { sinceMs: nowMs, count: 0 };
      this.#cell.observe({ event: 'schedule.worker', level: 'warn', lane: lane.name, problem: error.message });
    }
    lane.errors.count += 1;
    if (lane.errors.count <= ERRORS_PER_SECOND_MAX) return;
    void this.#replace(lane, lane.backOffMs, 'too many errors');
    lane.backOffMs = Math.min(2 * lane.backOffMs, BACK_OFF_MS_MAX);
  }

  /** A worker that does nothing while jobs wait is dead without knowing it (F22): it is replaced. */
  async #watch(): Promise<void> {
    for (const lane of this.#lanes) {
      if (lane.active > 0 || performance.now() - lane.progressAtMs < NO_PROGRESS_MS) continue;
      const waiting = await lane.queue.getWaitingCount().catch(() => 0);
      if (waiting > 0) await this.#replace(lane, 0, 'jobs wait and nothing happens');
    }
  }

  async #replace(lane: Lane, afterMs: number, because: string): Promise<void> {
    if (lane.replacing || this.#stopped) return;
    lane.replacing = true;
    this.#cell.observe({ event: 'schedule.worker_replaced', level: 'warn', lane: lane.name, because, afterMs });
    await dismiss(lane.worker);
    await delay(afterMs, undefined, { signal: this.#stop.signal, ref: false }).catch(() => {});
    lane.replacing = false;
    lane.progressAtMs = performance.now();
    if (!this.#stopped) this.#employ(lane);
  }

  /** Once per id at a time in this process. What throws stays due: the sweeper comes for it when its claim is over. */
  async #run(job: Job): Promise<void> {
    const key = `${job.name}:${job.id}`;
    if (!this.#handle || this.#running.has(key)) return;
    this.#running.add(key);
    try {
      await this.#handle(job);
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      this.#cell.observe({ event: 'schedule.job_failed', level: 'debug', job: job.name, id: job.id, problem });
    } finally {
      this.#running.delete(key);
    }
  }

  async #sweepOn(): Promise<void> {
    const { limits, clock } = this.#cell;
    while (!this.#stopped) {
      try {
        // Two clocks that disagree: nobody's time is passed off as overdue. Enforcement does not wait for this.
        if (this.#cell.line.clocksAgree()) {
          for (;;) {
            const page = await this.#claim(clock.now() - limits.sweepGraceMs);
            await this.#runAll(page);
            if (page.length < PAGE || this.#stopped) break;
          }
        }
      } catch (error) {
        const problem = error instanceof Error ? error.message : String(error);
        this.#cell.observe({ event: 'schedule.sweep_failed', level: 'warn', problem });
      }
      await delay(limits.sweepEveryMs, undefined, { signal: this.#stop.signal, ref: false }).catch(() => {});
    }
  }

  async #claim(dueByMs: number): Promise<Job[]> {
    const members = (await this.#cell.line.run(
      'claim-due',
      [this.#cell.keys.named('due')],
      [dueByMs, PAGE, this.#cell.clock.now() + CLAIM_MS],
    )) as string[];
    return members.map(readDue);
  }

  async #countDue(nowMs: number): Promise<number> {
    return this.#cell.line.ask((client) => client.zcount(this.#cell.keys.named('due'), '-inf', nowMs));
  }

  /** Each lane at its own width, all lanes at once. */
  async #runAll(jobs: readonly Job[]): Promise<void> {
    const work = (Object.keys(LANES) as LaneName[]).flatMap((lane) => {
      const queue = jobs.filter((job) => LANE_OF.get(job.name) === lane).values();
      const hand = async () => {
        for (const job of queue) await this.#run(job);
      };
      return Array.from({ length: LANES[lane].concurrency }, hand);
    });
    await Promise.all(work);
  }
}

/** Closes a worker without waiting for its jobs: what they had not settled is still due. */
async function dismiss(worker: Worker | undefined): Promise<void> {
  if (!worker) return;
  worker.removeAllListeners('error');
  worker.on('error', () => {});
  await withTimeLimit(worker.close(true));
}

/** `close()` of BullMQ has no time limit of its own and hangs on a connection that is gone. */
async function withTimeLimit(closing: Promise<unknown>): Promise<void> {
  await Promise.race([closing.catch(() => {}), delay(CLOSE_TIMEOUT_MS, undefined, { ref: false })]);
}
