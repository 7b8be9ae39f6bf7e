import type { TaskCharter, TaskRecord } from '../core/task.js';
import { Bounded } from './bounded.js';
import { unavailable } from './redis.js';

const TASKS_MAX = 20_000;

/** What is known of a task already: its charter never changes, its context only with its generation. */
interface Known {
  charter: TaskCharter;
  generation: string;
  context: Record<string, unknown>;
}

/** What was known of one task at one moment, and in which epoch. */
export interface Held {
  of: object;
  known: Known | undefined;
}

/** The mutable fields as scripts return them: state, generation, cut, heartbeat, live, ended, reason, by, charter, context. */
export type TaskReply = (string | null)[];

/**
 * Puts tasks together from what a script returned and what cannot have changed since: the state, the generation and the cut are
 * always the script's; the charter and the context of a generation are read once. Forgotten when the epoch changes.
 */
export class TaskRecords {
  #known = new Bounded<Known>(TASKS_MAX);

  /** What is known now, to be given to `read` with the answer: others may learn more, or all may be forgotten, before it comes. */
  held(id: string): Held {
    return { of: this.#known, known: this.#known.get(id) };
  }

  charterOf(id: string): TaskCharter | undefined {
    return this.#known.get(id)?.charter;
  }

  learn(charter: TaskCharter, generation: number, context: Record<string, unknown>): void {
    this.#known.set(charter.id, freeze(structuredClone({ charter, generation: String(generation), context })));
  }

  forget(): void {
    this.#known = new Bounded<Known>(TASKS_MAX);
  }

  /** `held`: what was known when the script was told what need not be sent. */
  read(id: string, reply: TaskReply, held: Held = this.held(id)): TaskRecord {
    const [state, generation, cut, heartbeat, live, ended, reason, by, charterText, contextText] = reply;
    // Of another epoch: it may be about a store that is gone.
    let known = held.of === this.#known ? held.known : undefined;
    if (!known || charterText || known.generation !== generation) {
      const charter = charterText ? (JSON.parse(charterText) as TaskCharter) : known?.charter;
      const context = contextText ? (JSON.parse(contextText) as Record<string, unknown>) : undefined;
      // What we believed to have was forgotten between asking and answer (a new epoch): the next question brings all of it.
      if (!charter || !context || !generation) throw unavailable('a task was forgotten while it was read');
      known = freeze({ charter, generation, context });
      this.#known.set(id, known);
    }
    return {
      ...known.charter,
      state: state as TaskRecord['state'],
      generation: Number(generation),
      context: known.context,
      liveUntilMs: Number(live),
      ...(cut && { cutAt: cut }),
      ...(heartbeat && { lastHeartbeatMs: Number(heartbeat) }),
      ...(ended && { endedAtMs: Number(ended), endReason: reason ?? '', endedBy: by ?? '' }),
    };
  }
}

/** Shared between readers, so nobody may write to it. */
function freeze<Value>(value: Value): Value {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const member of Object.values(value)) freeze(member);
  }
  return value;
}
