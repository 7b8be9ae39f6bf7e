import { join } from 'node:path';
import type { BrokerProcess, Brokers, StartOptions } from '../brokers.js';

/** The reconciler comes every 15 s, and whoever takes the place of one that died waits out its turn. */
const HELD_WITHIN_MS = 80_000;

/** A broker whose calls of the ledger (`ledger.commitLease`) and of a backend (`backend.revoke`) can be held. */
export class GatedBroker {
  readonly name: string;
  readonly process: BrokerProcess;
  /** Leases it was about to write an intent for. */
  readonly intended: string[] = [];
  #letGo: (() => void) | undefined;

  private constructor(name: string, process: BrokerProcess) {
    this.name = name;
    this.process = process;
    process.child.on('message', ({ intended }: { intended?: string }) => {
      if (intended !== undefined) this.intended.push(intended);
    });
  }

  static async start(brokers: Brokers, name: string, options: StartOptions): Promise<GatedBroker> {
    const script = join(import.meta.dirname, 'held-process.mjs');
    return new GatedBroker(name, await brokers.start(name, { ...options, script }));
  }

  get isAlive(): boolean {
    const { exitCode, signalCode } = this.process.child;
    return exitCode === null && signalCode === null;
  }

  /** Holds the next such call (about one of these leases or tasks, when some are named); resolves when it stands there, rejects when it is let go before. */
  async hold(call: string, when: 'before' | 'after', about: readonly string[] = []): Promise<this> {
    const { child } = this.process;
    await new Promise<void>((resolve, reject) => {
      const end = (settle: () => void) => {
        clearTimeout(timer);
        child.off('message', onMessage);
        this.#letGo = undefined;
        settle();
      };
      const fail = (how: string) =>
        end(() => reject(new Error(`${this.name} ${how} ${when} ${call}: ${this.process.said().slice(-2_000)}`)));
      const onMessage = ({ held }: { held?: string }) => held === call && end(resolve);
      const timer = setTimeout(() => fail('never stood'), HELD_WITHIN_MS);
      this.#letGo = () => fail('was let go');
      child.on('message', onMessage);
      child.send({ hold: { call, when, about } });
    });
    return this;
  }

  /** Lets it go on, and holds nothing more. */
  go(): void {
    this.#letGo?.();
    if (this.isAlive) this.process.child.send({ go: true });
  }

  signal(signal: NodeJS.Signals): void {
    this.process.child.kill(signal);
  }
}

/** Whichever of them comes there first; the others hold nothing more. */
export async function holdAny(
  among: readonly GatedBroker[],
  call: string,
  when: 'before' | 'after',
  about: string[],
): Promise<GatedBroker> {
  const held = await Promise.any(among.map((broker) => broker.hold(call, when, about)));
  for (const other of among) if (other !== held) other.go();
  return held;
}
