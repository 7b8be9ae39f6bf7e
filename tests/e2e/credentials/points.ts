import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import type { Fault } from '../../peers/fault-proxy.js';
import { type Reply, until } from '../brokers.js';
import { type GatedBroker, holdAny } from './gated-broker.js';
import { type Issued, POSTGRES, type Scene, SECRET, type ServerName } from './scene.js';

/** Where something is made to go wrong, and what has to be true of the lease when everything has settled. */
export interface Point {
  name: string;
  /** How many brokers have to stand: two where one is killed or stopped, so that the other goes on. */
  brokers: 1 | 2;
  run(scene: Scene): Promise<Outcome>;
}

export interface Outcome {
  task: string;
  leases: string[];
  /** `none`: no intent was ever written. */
  expected: 'revoked' | 'active' | 'none';
  /** From when on it was to be dead. */
  sinceMs: number;
  /** What the agent was told; absent: its broker was gone. */
  reply?: Reply | undefined;
  /** A session that was open as the credential when its end came. */
  session?: pg.Client;
}

type When = 'before' | 'after';
const ANSWER_WITHIN_MS = 20_000;

/** Held at that step of an issue, `fault` happens; then the broker goes on, if it can. */
export function atIssue(
  what: string,
  [when, call]: [When, string],
  expected: Outcome['expected'],
  fault: (at: {
    scene: Scene;
    victim: GatedBroker;
    task: string;
    go: () => Promise<Reply | undefined>;
  }) => Promise<Reply | undefined>,
  secret = SECRET,
): Point {
  return {
    name: `issue: ${what} ${when} ${call}`,
    brokers: fault === killed || fault === stoppedPastDeadline ? 2 : 1,
    async run(scene) {
      const task = await scene.openTask();
      const victim = scene.actor;
      let before = 0;
      let asking: Promise<Reply | undefined> = Promise.resolve(undefined);
      // One that has only just come, or has just lost a server, says 503 for a moment.
      await until(`it stands ${when} ${call}`, ANSWER_WITHIN_MS, async () => {
        before = victim.intended.length;
        const held = victim.hold(call, when);
        asking = scene.ask(task, victim, secret);
        const first = await Promise.race([held, asking]);
        if (first === victim) return true;
        victim.go();
        held.catch(() => undefined);
        throw new Error(JSON.stringify((first as Reply | undefined)?.body));
      });
      const go = () => {
        victim.go();
        return answered(asking);
      };
      const reply = await fault({ scene, victim, task, go });
      return { task, leases: victim.intended.slice(before), expected, sinceMs: performance.now(), reply };
    },
  };
}

/** A credential is held with a session open; held at that step of its task's end, `fault` happens. */
export function atEnd(
  what: string,
  [when, call]: [When, string],
  fault: (at: { scene: Scene; victim: GatedBroker; task: string; lease: string }) => Promise<void>,
  brokers: 1 | 2 = 1,
  secret = SECRET,
): Point {
  return {
    name: `end: ${what} ${when} ${call}`,
    brokers,
    async run(scene) {
      const task = await scene.openTask();
      const victim = scene.actor;
      const { reply, lease } = await scene.issued(task, victim, secret);
      const session = await scene.logIn(reply);
      // The end itself goes to one broker; what follows from it is done by whichever comes first.
      const isEnd = call === 'ledger.endTask';
      let ending: Promise<Reply | undefined> = Promise.resolve(undefined);
      let holder: GatedBroker = victim;
      if (isEnd) {
        await until(`it stands ${when} ${call}`, ANSWER_WITHIN_MS, async () => {
          const held = victim.hold(call, when, [task]);
          ending = scene.brokers.end(victim.process, task).catch(() => undefined);
          const first = await Promise.race([held, ending]);
          if (first === victim) return true;
          victim.go();
          held.catch(() => undefined);
          throw new Error(JSON.stringify((first as Reply | undefined)?.body));
        });
      } else {
        const held = holdAny(scene.standing, call, when, [task, lease]);
        ending = scene.brokers.end(victim.process, task).catch(() => undefined);
        holder = await held;
        await ending;
      }
      await fault({ scene, victim: holder, task, lease });
      const sinceMs = performance.now();
      // Whoever was told nothing says it again, as a client does.
      if ((await answered(ending))?.status !== 200) await scene.endTask(task);
      return { task, leases: [lease], expected: 'revoked', sinceMs, session };
    },
  };
}

/** How a backend comes to have something else than the leases say. */
export interface Oddities {
  backend: string;
  secret: string;
  /** Something that no lease knows, made as for the lease `lease`; `about` is in every call that is about it. */
  plant(scene: Scene, like: Issued): Promise<{ lease: string; about: string }>;
  /** Somebody else takes a credential away. */
  lose(scene: Scene, made: Issued): Promise<void>;
}

const AT_POSTGRES: Oddities = {
  backend: POSTGRES,
  secret: SECRET,
  plant: async (scene, like) => {
    const lease = await scene.plantOrphan(like);
    return { lease, about: lease };
  },
  lose: (scene, made) => scene.lose(made),
};

/** Something is at the backend that no lease knows, or is not there although its lease says so; held at that step of the reconciler, `fault` happens. */
export function atReconcile(
  what: string,
  [when, call]: [When, string],
  oddity: 'orphan' | 'lost',
  fault: (at: { scene: Scene; victim: GatedBroker; task: string; lease: string }) => Promise<void>,
  brokers: 1 | 2 = 1,
  { backend, secret, plant, lose }: Oddities = AT_POSTGRES,
): Point {
  return {
    name: `reconcile: ${what} ${when} ${call}, with ${oddity === 'orphan' ? 'an orphan' : 'a credential lost'}`,
    brokers,
    async run(scene) {
      const task = await scene.openTask();
      const made = await scene.issued(task, scene.actor, secret);
      const { lease, about } =
        oddity === 'orphan' ? await plant(scene, made) : { lease: made.lease, about: made.lease };
      const session = oddity === 'orphan' ? undefined : await scene.logIn(made.reply);
      const held = scene.holdAny(call, when, call.startsWith('backend.find') ? [] : [about]);
      held.catch(() => undefined);
      if (oddity === 'lost') await lose(scene, made);
      const victim = await scene.reconcilingSoon(held, backend);
      await fault({ scene, victim, task, lease });
      return {
        task,
        leases: oddity === 'orphan' ? [lease, made.lease] : [lease],
        expected: oddity === 'orphan' ? 'active' : 'revoked',
        sinceMs: performance.now(),
        ...(session && { session }),
      };
    },
  };
}

export const killed = async ({ scene, victim }: { scene: Scene; victim: GatedBroker }) => {
  await scene.kill(victim);
  return undefined;
};

/** A server is gone when the broker goes on, and comes back once the broker has answered. */
export const away =
  (what: ServerName) =>
  ({ scene, go }: { scene: Scene; go: () => Promise<Reply | undefined> }) =>
    scene.without(what, go);

/** The broker is stopped until somebody else has taken its intent away, and then goes on. */
export const stoppedPastDeadline = async ({
  scene,
  victim,
  go,
}: {
  scene: Scene;
  victim: GatedBroker;
  go: () => Promise<Reply | undefined>;
}) => {
  const lease = victim.intended.at(-1) as string;
  victim.signal('SIGSTOP');
  try {
    await until('its intent is being revoked', 20_000, async () => {
      const found = await (await scene.views()).lease(lease);
      return found?.state === 'revoking' && (found.attempts ?? 0) > 0;
    });
  } finally {
    victim.signal('SIGCONT');
  }
  return go();
};

/** What the broker sends arrives, and no answer comes back until it has given up. */
export const unanswered =
  (what: ServerName, fault: Fault) =>
  async ({ scene, go }: { scene: Scene; go: () => Promise<Reply | undefined> }) => {
    const proxy = scene.proxyOf(what);
    const endOutage = scene.witness.beginOutage();
    proxy.set(fault);
    try {
      return await go();
    } finally {
      proxy.set('pass');
      endOutage();
    }
  };

/** Something else happens to the task while the broker stands there. */
export const meanwhile =
  (act: (scene: Scene, task: string) => Promise<unknown>) =>
  async ({ scene, task, go }: { scene: Scene; task: string; go: () => Promise<Reply | undefined> }) => {
    await act(scene, task);
    return go();
  };

async function answered<T>(asking: Promise<T>): Promise<T | undefined> {
  return Promise.race([asking, delay(ANSWER_WITHIN_MS, undefined, { ref: false })]);
}

/** Longer than any call waits for it. */
const LOST_MS = { redis: 1_000, postgres: 2_600, openbao: 2_600 };

/** The same for an end, where nobody waits for an answer. */
export const atEndFaults = {
  away:
    (what: ServerName) =>
    async ({ scene, victim }: { scene: Scene; victim: GatedBroker }) => {
      await scene.without(what, async () => victim.go());
    },
  unanswered:
    (what: ServerName, how: 'swallow' | 'silent') =>
    async ({ scene, victim }: { scene: Scene; victim: GatedBroker }) => {
      await unanswered(
        what,
        how,
      )({
        scene,
        go: async () => {
          victim.go();
          await delay(LOST_MS[what]);
          return undefined;
        },
      });
    },
  /** Long enough that another one takes its attempt over. */
  stopped: async ({ scene, victim, lease }: { scene: Scene; victim: GatedBroker; lease: string }) => {
    victim.signal('SIGSTOP');
    try {
      await scene.until('another one has done it', async (views) => (await views.lease(lease))?.state === 'revoked');
    } finally {
      victim.signal('SIGCONT');
    }
    victim.go();
  },
  killed: async (at: { scene: Scene; victim: GatedBroker }) => {
    await killed(at);
  },
};
