import { BrokerError } from '../../src/core/errors.js';
import type { Clock } from '../../src/core/time.js';

const SCRIPT_DEADLINE_MS = 1_000;

/** What becomes of one awaited call: it runs; it fails without effect; its reply is lost; the process dies before it, or after it. */
export type Fate = 'run' | 'fail' | 'lose-reply' | 'die-before' | 'die-after';

interface Gate {
  label: string;
  open(fate: Fate): void;
}

/** A call that took effect, in the order of the line. */
export interface Call {
  process: Process;
  target: string;
  method: string;
  args: unknown[];
  result: unknown;
}

/** One verb on its way: it stands still before each awaited call until somebody lets it go on. */
export class Process {
  readonly name: string;
  readonly broker: number;
  readonly gates: Gate[] = [];
  over = false;
  result: unknown;
  error: unknown;

  constructor(name: string, broker: number) {
    this.name = name;
    this.broker = broker;
  }

  get waitsFor(): string | undefined {
    return this.gates[0]?.label;
  }
}

/** All verbs on their way. Nothing moves unless `step` moves it, so one list of steps is one interleaving. */
export class Processes {
  readonly running: Process[] = [];
  readonly #clock: Clock;
  readonly #onCall: (call: Call) => void;

  constructor(clock: Clock, onCall: (call: Call) => void) {
    this.#clock = clock;
    this.#onCall = onCall;
  }

  /** Starts a verb and lets it run to its first awaited call. */
  async spawn(name: string, broker: number, verb: (process: Process) => Promise<unknown>): Promise<Process> {
    const process = new Process(name, broker);
    this.running.push(process);
    verb(process).then(
      (result) => this.#end(process, { result }),
      (error: unknown) => this.#end(process, { error }),
    );
    await settled();
    return process;
  }

  /** Lets the first waiting call of a process meet its fate, and the process run on to its next. */
  async step(process: Process, fate: Fate = 'run'): Promise<void> {
    const gate = process.gates.shift();
    if (!gate) return;
    gate.open(fate);
    await settled();
    if (fate === 'die-before' || fate === 'die-after') this.kill(process);
  }

  /** Runs a process to its end. */
  async finish(process: Process): Promise<void> {
    for (let steps = 0; process.gates.length > 0; steps++) {
      if (steps > 2_000) throw new Error(`${process.name} does not come to an end: ${process.waitsFor}`);
      await this.step(process);
    }
  }

  /** The process is gone with its machine; its calls on the way are not made. */
  kill(process: Process): void {
    process.over = true;
    process.gates.length = 0;
    const at = this.running.indexOf(process);
    if (at !== -1) this.running.splice(at, 1);
  }

  /** The target, each of its methods a place to stand still at. */
  gated<Target extends object>(process: Process, name: string, target: Target, methods: readonly string[]): Target {
    return new Proxy(target, {
      get: (real, property) => {
        const value = Reflect.get(real, property, real) as unknown;
        if (typeof value !== 'function') return value;
        const method = String(property);
        if (!methods.includes(method)) return value.bind(real);
        return async (...args: unknown[]) => {
          const askedAtMs = this.#clock.now();
          const fate = await this.#stand(process, `${name}.${method}`);
          // A script past its deadline does nothing.
          const late = name === 'ledger' && this.#clock.now() - askedAtMs > SCRIPT_DEADLINE_MS;
          if (fate === 'fail' || late) throw new BrokerError('unavailable', 'Mayfly cannot decide right now.');
          if (fate === 'die-before') return new Promise(() => {});
          const copy = structuredClone(args);
          const result: unknown = await value.apply(real, args);
          this.#onCall({ process, target: name, method, args: copy, result: structuredClone(result) });
          if (fate === 'lose-reply') throw new BrokerError('unavailable', 'Mayfly cannot decide right now.');
          if (fate === 'die-after') return new Promise(() => {});
          return result;
        };
      },
    });
  }

  #stand(process: Process, label: string): Promise<Fate> {
    return new Promise((resolve) => {
      process.gates.push({ label, open: resolve });
    });
  }

  #end(process: Process, outcome: { result?: unknown; error?: unknown }): void {
    if (process.over) return;
    process.result = outcome.result;
    process.error = outcome.error;
    this.kill(process);
  }
}

/** Everything that can run without an answer from outside has run. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
