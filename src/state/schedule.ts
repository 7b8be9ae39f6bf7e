import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { Queue, Worker } from 'bullmq';
import type { Cell } from './cell.js';
import { dueMember, MESSENGER_MS, readDue } from './due.js';
import { Hands } from './hands.js';
import { Outbox } from './outbox.js';
import { connect, type RedisClient, type RedisUrl } from './redis.js';
import type { Job, JobName, Schedule } from './stores.js';

type Handle = (job: Job) => Promise<void>;
type More = NonNullable<Parameters<Schedule['start']>[1]>;

/** Work that somebody waits for does not queue behind work that takes long. */
const LANE_OF: Record<JobName, string> = {
  'drain-task': 'drain',
  'watch-task': 'drain',
  're-evaluate-task': 'judge',
  're-evaluate-bundle': 'judge',
  'run-revocation': 'revoke',
  'retire-credential': 'retire',
};

/**
 * How much of each lane a process does at a time; `retire` is for backends that this process does not have. A drain is many short questions, and those
 * of drains that go on side by side travel together.
 */
const CONCURRENCY = { drain: 64, judge: 4, revoke: 2, retire: 4 };

/** One lane for each backend, so that one that is slow or broken starves no other. */
const laneOf = ({ name, backend }: Job) => `${LANE_OF[name]}${backend === undefined ? '' : `@${backend}`}`;

/** What one messenger tells of at most; how long the next waits after one that told of several, for each of them and at most. */
const TOLD_MAX = 100;
const TELL_WAIT_MS_EACH = 10;
const TELL_WAIT_MS_MAX = 60;

const PAGE = 500;
/** Pages of tasks whose time has come: they share the store's waits for its disk. */
const PAGES_IN_FLIGHT = 4;
/** The sweeper rests so long at least. */
const REST_MS_MIN = 5;
/** While clocks disagree, since then it may take what is put back. */
const UNSURE_REST_MS = 2_000;
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
/** More errors than this in one second, and a worker makes way for the sweeper for a while (a full Redis makes workers spin). */
const ERRORS_PER_SECOND_MAX = 10;
const BACK_OFF_MS = 5_000;
const BACK_OFF_MS_MAX = 30_000;
/** Above this many Redis is not keeping up: the sweeper finds the work in the due index. */
const UNTOLD_MAX = 10_000;
/** Longer than any id or name of ours: what a stranger put into a queue fills no log. */
const MEMBER_LENGTH_MAX = 256;
/** What does not fit is taken again when its claim is over. */
const WAITING_MAX = 20_000;

/**
 * One queue's hands in this process: as many for what its worker (replaceable) was told, which somebody waits for, as for what the sweeper
 * brought. Neither waits for the other: what is swept may be a hundred thousand at once.
 */
interface Lane {
  name: string;
  concurrency: number;
  queue: Queue;
  worker: Worker | undefined;
  told: Hands;
  swept: Hands;
  active: number;
  progressAtMs: number;
  errors: { sinceMs: number; count: number };
  backOffMs: number;
  replacing: boolean;
}

/**
 * Hands for due work. The truth is the due index in the cell (every script that makes something due writes it there): a BullMQ job for it is a
 * quick messenger that may be lost, repeated or late, and the sweeper comes for whatever no job has settled in time
 * (docs/architecture.md, "Jobs are hands, the lease is truth").
 */
export class RedisSchedule implements Schedule {
  readonly #cell: Cell;
  readonly #url: RedisUrl;
  readonly #prefix: string;
  readonly #producer: RedisClient;
  readonly #queues = new Map<string, Queue>();
  readonly #outboxes = new Map<string, Outbox<Job>>();
  readonly #running = new Set<string>();
  readonly #again = new Set<string>();
  #consumer: RedisClient | undefined;
  readonly #lanes = new Map<string, Lane>();
  #handle: Handle | undefined;
  #watchTasks: More['watch'];
  #sweeping: Promise<void> | undefined;
  #watchTimer: NodeJS.Timeout | undefined;
  #stopped = false;
  readonly #stop = new AbortController();

  /** `producer` fails fast; jobs of this process and of others go through it. */
  constructor(cell: Cell, url: RedisUrl, producer: RedisClient, prefix: string) {
    this.#cell = cell;
    this.#url = url;
    this.#producer = producer;
    this.#prefix = prefix;
  }

  add(job: Job): void {
    if (this.#stopped) return;
    const lane = laneOf(job);
    let outbox = this.#outboxes.get(lane);
    if (!outbox) {
      const send = (jobs: Job[]) => this.#tell(lane, jobs);
      outbox = new Outbox({
        together: TOLD_MAX,
        waitMsEach: TELL_WAIT_MS_EACH,
        waitMsMax: TELL_WAIT_MS_MAX,
        // By then the sweeper has come for what it tells of.
        unheardMsMax: MESSENGER_MS,
        waitingMax: UNTOLD_MAX,
        send,
      });
      this.#outboxes.set(lane, outbox);
    }
    outbox.add(job);
  }

  async start(handle: Handle, { backends = [], watch }: More = {}): Promise<void> {
    this.#handle = handle;
    this.#watchTasks = watch;
    this.#consumer = connect(this.#url, 'waiting', this.#cell.observe);
    for (const [name, concurrency] of Object.entries(CONCURRENCY)) this.#open(name, concurrency);
    for (const { name, concurrency } of backends) this.#open(`${LANE_OF['retire-credential']}@${name}`, concurrency);
    for (const lane of this.#lanes.values()) this.#employ(lane);
    this.#sweeping = this.#sweepOn();
    this.#watchTimer = setInterval(() => void this.#watch(), WATCH_EVERY_MS);
  }

  async sweep(): Promise<number> {
    const dueByMs = this.#nowMs() + MESSENGER_MS;
    if (!this.#handle) return this.#countDue(dueByMs);
    let count = 0;
    for (;;) {
      const { jobs } = await this.#claim(dueByMs);
      const { apart, together } = this.#deal(jobs);
      await Promise.all([...apart, together]);
      count += jobs.length;
      if (jobs.length < PAGE) return count;
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#stop.abort();
    clearInterval(this.#watchTimer);
    const lanes = [...this.#lanes.values()];
    for (const outbox of this.#outboxes.values()) outbox.drop();
    for (const lane of lanes) for (const hands of [lane.told, lane.swept]) hands.drop();
    await Promise.all(lanes.map((lane) => dismiss(lane.worker)));
    await this.#sweeping;
    await Promise.all([...this.#queues.values()].map((queue) => withTimeLimit(queue.close())));
    this.#consumer?.disconnect();
    this.#handle = undefined;
  }

  /** One messenger, whose words are those of the due index. */
  async #tell(lane: string, jobs: Job[]): Promise<void> {
    // A fresh id each time: an id that a finished job still holds would be ignored without a word.
    const jobId = randomBytes(12).toString('hex');
    const options = { jobId, attempts: 1, removeOnComplete: true, removeOnFail: true };
    await this.#queueOf(lane).add('due', { due: jobs.map(dueMember) }, options);
  }

  #queueOf(name: string): Queue {
    let queue = this.#queues.get(name);
    if (!queue) {
      queue = new Queue(name, { connection: this.#producer, prefix: this.#prefix, skipVersionCheck: true });
      queue.on('error', () => {});
      this.#queues.set(name, queue);
    }
    return queue;
  }

  #open(name: string, concurrency: number): void {
    const hands = () => new Hands(concurrency, WAITING_MAX, (job) => this.#run(job));
    this.#lanes.set(name, {
      name,
      concurrency,
      queue: this.#queueOf(name),
      worker: undefined,
      told: hands(),
      swept: hands(),
      active: 0,
      progressAtMs: performance.now(),
      errors: { sinceMs: 0, count: 0 },
      backOffMs: BACK_OFF_MS,
      replacing: false,
    });
  }

  #employ(lane: Lane): void {
    const worker = new PromptWorker(
      lane.name,
      async (job) => {
        lane.active += 1;
        lane.progressAtMs = performance.now();
        try {
          await Promise.all(readMessage(job.data).map((one) => lane.told.give(one)));
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
        concurrency: lane.concurrency,
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

  /** A worker that does nothing while jobs wait is dead without knowing it, as after some fail-overs: it is replaced. */
  async #watch(): Promise<void> {
    for (const lane of this.#lanes.values()) {
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

  /**
   * Once per id at a time in this process; what is asked for meanwhile may know more, and is done after it. What throws stays due: the sweeper comes
   * for it when its claim is over.
   */
  async #run(job: Job): Promise<void> {
    const key = dueMember(job);
    const handle = this.#handle;
    if (!handle) return;
    if (this.#running.has(key)) {
      this.#again.add(key);
      return;
    }
    this.#running.add(key);
    try {
      do await this.#try(job.name, job.id, () => handle(job));
      while (this.#again.delete(key) && !this.#stopped);
    } finally {
      this.#running.delete(key);
    }
  }

  async #try(job: JobName, id: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      this.#cell.observe({ event: 'schedule.job_failed', level: 'debug', job, id, problem });
    }
  }

  async #sweepOn(): Promise<void> {
    const { limits, line } = this.#cell;
    while (!this.#stopped) {
      let restMs = limits.sweepEveryMs;
      try {
        const nextMs = await this.#sweepAll();
        restMs = line.clocksAgree()
          ? Math.min(restMs, Math.max(nextMs - this.#nowMs(), REST_MS_MIN))
          : Math.max(restMs, UNSURE_REST_MS);
      } catch (error) {
        const problem = error instanceof Error ? error.message : String(error);
        this.#cell.observe({ event: 'schedule.sweep_failed', level: 'warn', problem });
      }
      await delay(restMs, undefined, { signal: this.#stop.signal, ref: false }).catch(() => {});
    }
  }

  /**
   * Of two clocks that disagree, Redis', which all brokers share. Whether the time of a thing has come is asked again by the script that ends it, and
   * by the earlier clock: what comes too early is put back, and comes again without haste.
   */
  #nowMs(): number {
    const { line, clock } = this.#cell;
    return line.clocksAgree() ? clock.now() : Math.floor(line.redisNowMs());
  }

  /** Gives out everything due; returns when the next is. */
  async #sweepAll(): Promise<number> {
    const pages: Promise<void>[] = [];
    for (;;) {
      const { jobs, nextMs } = await this.#claim(this.#nowMs());
      // What waits for a backend does not keep the sweeper.
      pages.push(this.#deal(jobs).together);
      if (jobs.length < PAGE || this.#stopped) return nextMs;
      if (pages.length === PAGES_IN_FLIGHT) await pages.shift();
    }
  }

  /** To the hands of each job's lane; tasks whose time has come all together. */
  #deal(jobs: Job[]): { apart: Promise<void>[]; together: Promise<void> } {
    const watch = this.#watchTasks;
    const isWatch = ({ name }: Job) => watch !== undefined && name === 'watch-task';
    const ids = jobs.filter(isWatch).map(({ id }) => id);
    return {
      apart: jobs.filter((job) => !isWatch(job)).map((job) => this.#give(job)),
      together:
        watch && ids.length > 0 ? this.#try('watch-task', `${ids.length} tasks`, () => watch(ids)) : Promise.resolve(),
    };
  }

  async #claim(dueByMs: number): Promise<{ jobs: Job[]; nextMs: number }> {
    const [next, ...members] = (await this.#cell.line.run(
      'claim-due',
      [this.#cell.keys.named('due')],
      [dueByMs, PAGE, this.#nowMs() + CLAIM_MS],
    )) as [string, ...string[]];
    return { jobs: members.map(readDue), nextMs: next === '' ? Number.POSITIVE_INFINITY : Number(next) };
  }

  async #countDue(nowMs: number): Promise<number> {
    return this.#cell.line.ask((client) => client.zcount(this.#cell.keys.named('due'), '-inf', nowMs));
  }

  /** To the hands of its lane; resolves when it is done. */
  #give(job: Job): Promise<void> {
    const lane = this.#lanes.get(laneOf(job)) ?? this.#lanes.get(LANE_OF[job.name]);
    return lane ? lane.swept.give(job) : Promise.resolve();
  }
}

/**
 * BullMQ rests 5 s after a look for stalled jobs that failed, and no close ends that: it would hold the process. The next look is
 * `stalledInterval` away as it is, and a close ends that.
 */
class PromptWorker extends Worker {
  protected override checkConnectionError<T>(look: () => Promise<T>): Promise<T | undefined> {
    return super.checkConnectionError(look, 0);
  }
}

/** Anybody who can write to the queue can write anything into it. */
function readMessage(data: unknown): Job[] {
  const { due } = (data ?? {}) as { due?: unknown };
  if (!Array.isArray(due)) return [];
  return due
    .slice(0, TOLD_MAX)
    .flatMap((member) => (typeof member === 'string' ? [readDue(member.slice(0, MEMBER_LENGTH_MAX))] : []));
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
