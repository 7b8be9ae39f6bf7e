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

/** The mutable fields as scripts return them: state, generation, cut, heartbeat, live, ended, reason, by, charter, context. */
export type TaskReply = (string | null)[];

/**
 * Puts tasks together from what a script returned and what cannot have changed since: the state, the generation and the cut are
 * always the script's; the charter and the context of a generation are read once. Forgotten when the epoch changes.
 */
export class TaskRecords {
  readonly #known = new Bounded<Known>(TASKS_MAX);

  /** The generation whose charter and context need not be sent again; '' for none. */
  has(id: string): string {
    return this.#known.get(id)?.generation ?? '';
  }

  charterOf(id: string): TaskCharter | undefined {
    return this.#known.get(id)?.charter;
  }

  learn(charter: TaskCharter, generation: number, context: Record<string, unknown>): void {
    this.#known.set(charter.id, freeze(structuredClone({ charter, generation: String(generation), context })));
  }

  forget(): void {
    this.#known.clear();
  }

  read(id: string, reply: TaskReply): TaskRecord {
    const [state, generation, cut, heartbeat, live, ended, reason, by, charterText, contextText] = reply;
    let known = this.#known.get(id);
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
