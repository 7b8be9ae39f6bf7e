import type { LeaseRecord } from '../../src/core/lease.js';
import { until } from '../e2e/brokers.js';
import {
  atEnd,
  atIssue,
  atReconcile,
  away,
  atEndFaults as fault,
  killed,
  meanwhile,
  type Outcome,
  type Point,
  stoppedPastDeadline,
  unanswered,
} from '../e2e/credentials/points.js';
import { sweep } from '../e2e/credentials/sweep.js';
import { atBao, BAO_SECRET, BaoScene, CREDS, TOKENS } from './bao-scene.js';
import { describeVault } from './vault-world.js';

/** docs/architecture.md, Bounds: life of what nobody answers for, with its backend up. */
const ORPHAN_MS_MAX = 30_000;
const STOPPED_MS_MAX = 20_000;

let own: BaoScene;

type When = 'before' | 'after';
type IssueFault = Parameters<typeof atIssue>[3];
type EndFault = Parameters<typeof atEnd>[2];

const issuing = (what: string, step: [When, string], expected: Outcome['expected'], how: IssueFault) =>
  atIssue(what, step, expected, how, BAO_SECRET);
const ending = (what: string, step: [When, string], how: EndFault, brokers: 1 | 2 = 1) =>
  atEnd(what, step, how, brokers, BAO_SECRET);
const reconciling = (
  what: string,
  step: [When, string],
  oddity: 'orphan' | 'lost',
  how: EndFault,
  brokers: 1 | 2 = 1,
) => {
  const oddities = atBao(() => own);
  return atReconcile(what, step, oddity, how, brokers, oddities);
};

/** The steps inside: what a backend's call asks of the OpenBao. */
const makesToken = `backend.issue: ${TOKENS}`;
const reads = `backend.issue: ${CREDS}`;
const revokesLease = 'backend.revoke: sys/leases/revoke';
const revokesToken = 'backend.revoke: auth/token/revoke-accessor';

const endedMeanwhile = meanwhile((scene, task) => scene.endTask(task));

const nameOf = (lease: string) => lease.slice('lse_'.length);

/** The user cannot be made or dropped until OpenBao, which waits for that, is dead. */
const diesWaiting = async <T>(lease: string, go: () => Promise<T>): Promise<T> => {
  const endOutage = own.scene.witness.beginOutage();
  try {
    return await own.holdingRoles(async (waits) => {
      const answered = go();
      await waits(nameOf(lease));
      await own.bao.kill();
      return answered;
    });
  } finally {
    await own.bao.kill();
    await own.bao.restart();
    endOutage();
  }
};

/** Stopped while OpenBao makes the user; meanwhile another broker revokes the token, which does not stop OpenBao. */
const stoppedWaiting: IssueFault = async ({ scene, victim, go }) => {
  const lease = victim.intended.at(-1) as string;
  let asked: ReturnType<typeof go> | undefined;
  try {
    await own.holdingRoles(async (waits) => {
      asked = go();
      await waits(nameOf(lease));
      victim.signal('SIGSTOP');
      await until('its token is revoked', STOPPED_MS_MAX, async () => {
        return [...(await own.look()).tokens.values()].every((token) => token.lease !== lease);
      });
    });
    await until('its user is made all the same', STOPPED_MS_MAX, async () => {
      return (await scene.witness.look()).some((role) => role.includes(nameOf(lease)));
    });
  } finally {
    victim.signal('SIGCONT');
  }
  return asked;
};

const sealed: EndFault = async ({ scene, victim, lease }) => {
  const endOutage = scene.witness.beginOutage();
  await own.bao.seal();
  victim.go();
  await scene.until('it was told so', async (views) => {
    const { lastProblem = '' } = (await views.lease(lease)) ?? {};
    return lastProblem.includes('sealed');
  });
  await own.bao.unseal();
  endOutage();
};

/** Killed, or not heard of, between the making of a token and its note: nobody knows that one. It has read nothing, nobody has it, and it ends by itself. */
const unnoted: Point[] = [
  issuing('the broker is killed', ['after', makesToken], 'revoked', killed),
  issuing('the reply is lost', ['before', makesToken], 'revoked', unanswered('openbao', 'swallow')),
];

const points: Point[] = [
  ...unnoted,
  issuing('the broker is killed', ['before', 'ledger.openIntent'], 'none', killed),
  issuing('the broker is killed', ['after', 'ledger.openIntent'], 'revoked', killed),
  issuing('the broker is killed', ['after', 'ledger.noteCredential'], 'revoked', killed),
  issuing('the broker is killed', ['after', reads], 'revoked', killed),
  issuing('the broker is killed', ['after', 'ledger.commitLease'], 'active', killed),
  issuing('Redis is killed', ['before', 'ledger.openIntent'], 'none', away('redis')),
  issuing('Redis is killed', ['before', 'ledger.noteCredential'], 'revoked', away('redis')),
  issuing('Redis is killed', ['after', reads], 'revoked', away('redis')),
  issuing('Redis is killed', ['after', 'ledger.commitLease'], 'active', away('redis')),
  issuing('OpenBao is killed', ['before', makesToken], 'revoked', away('openbao')),
  issuing('OpenBao is killed', ['after', makesToken], 'revoked', away('openbao')),
  issuing('OpenBao is killed', ['before', reads], 'revoked', away('openbao')),
  issuing('OpenBao is killed waiting for PostgreSQL', ['before', reads], 'revoked', ({ victim, go }) =>
    diesWaiting(victim.intended.at(-1) as string, go),
  ),
  issuing('OpenBao is killed', ['after', reads], 'active', away('openbao')),
  issuing('the reply is lost', ['before', 'ledger.noteCredential'], 'revoked', unanswered('redis', 'swallow')),
  issuing('the reply is lost', ['before', reads], 'revoked', unanswered('openbao', 'swallow')),
  issuing('the reply is lost', ['before', 'ledger.commitLease'], 'revoked', unanswered('redis', 'swallow')),
  issuing('no answer in time', ['before', makesToken], 'revoked', unanswered('openbao', 'silent')),
  issuing('no answer in time', ['before', reads], 'revoked', unanswered('openbao', 'silent')),
  issuing('the task ended', ['after', makesToken], 'revoked', endedMeanwhile),
  issuing('the task ended', ['before', reads], 'revoked', endedMeanwhile),
  issuing('the task ended', ['before', 'ledger.commitLease'], 'revoked', endedMeanwhile),
  issuing('the issuer is stopped past its deadline', ['after', makesToken], 'revoked', stoppedPastDeadline),
  issuing('the issuer is stopped past its deadline', ['before', reads], 'revoked', stoppedPastDeadline),
  issuing('the issuer is stopped past its deadline', ['after', reads], 'revoked', stoppedPastDeadline),
  { ...issuing('the issuer is stopped, OpenBao goes on', ['before', reads], 'revoked', stoppedWaiting), brokers: 2 },

  ending('the worker is killed', ['before', revokesLease], fault.killed, 2),
  ending('the worker is killed', ['after', revokesLease], fault.killed, 2),
  ending('the worker is killed', ['after', revokesToken], fault.killed, 2),
  ending('the worker is killed', ['after', `backend.probe: ${CREDS}`], fault.killed, 2),
  ending('the worker is killed', ['before', 'ledger.closeAttempt'], fault.killed, 2),
  ending('the worker is stopped until another has done it', ['before', revokesLease], fault.stopped, 2),
  ending('Redis is killed', ['before', 'ledger.beginAttempt'], fault.away('redis')),
  ending('Redis is killed', ['after', revokesLease], fault.away('redis')),
  ending('Redis is killed', ['before', 'ledger.closeAttempt'], fault.away('redis')),
  ending('OpenBao is killed', ['before', revokesLease], fault.away('openbao')),
  ending('OpenBao is killed waiting for PostgreSQL', ['before', revokesLease], ({ victim, lease }) =>
    diesWaiting(lease, async () => victim.go()),
  ),
  ending('OpenBao is killed', ['after', revokesLease], fault.away('openbao')),
  ending('OpenBao is killed', ['after', revokesToken], fault.away('openbao')),
  ending('OpenBao is killed', ['before', 'backend.probe'], fault.away('openbao')),
  ending('OpenBao is sealed', ['before', revokesLease], sealed),
  ending('the reply is lost', ['before', revokesLease], fault.unanswered('openbao', 'swallow')),
  ending('the reply is lost', ['before', revokesToken], fault.unanswered('openbao', 'swallow')),
  ending('the reply is lost', ['before', 'backend.confirm'], fault.unanswered('openbao', 'swallow')),
  ending('no answer in time', ['before', revokesLease], fault.unanswered('openbao', 'silent')),

  reconciling('OpenBao is killed', ['before', 'backend.find'], 'orphan', fault.away('openbao')),
  reconciling('OpenBao is killed', ['before', 'backend.revoke'], 'orphan', fault.away('openbao')),
  reconciling('the worker is killed', ['before', 'ledger.revokeLeases'], 'lost', fault.killed, 2),
  reconciling('the worker is killed', ['before', 'backend.revoke'], 'orphan', fault.killed, 2),
];

describeVault('crash sweep on a real OpenBao: what exists is what the leases say', () => {
  const unnotedOf = new Set<string>();
  const everNamed = new Set<string>();

  sweep(
    points,
    async () => {
      own = await BaoScene.open();
      return own.scene;
    },
    async ({ leases, sinceMs }, point) => {
      for (const id of leases) {
        const record = await own.lease(id);
        const isActive = record?.state === 'active';
        const named = partsOf(record);
        if (unnoted.some(({ name }) => name === point)) unnotedOf.add(id);
        await until('OpenBao has what the lease says', ORPHAN_MS_MAX, async () => {
          const found = await own.look();
          const tokens = [...found.tokens].filter(([, token]) => token.lease === id).map(([accessor]) => accessor);
          const there = named.leases.filter((lease) => found.leases.has(lease));
          expect(there).toHaveLength(isActive ? 1 : 0);
          if (unnotedOf.has(id)) expect(tokens.length).toBeLessThanOrEqual(1);
          else expect(tokens).toEqual(isActive ? named.tokens : []);
          return true;
        });
        for (const part of [...named.leases, ...named.tokens]) {
          everNamed.add(part);
          if (!isActive) expect(livedOnMs(part, sinceMs)).toBeLessThan(ORPHAN_MS_MAX);
        }
      }
    },
  );

  it('when the last task is over nothing is left at OpenBao but tokens that could not be noted, which have nothing', async () => {
    await until('nothing is left', ORPHAN_MS_MAX, async () => {
      const found = await own.look();
      const tokens = [...found.tokens].filter(([, { lease }]) => lease === undefined || !unnotedOf.has(lease));
      expect({ tokens, leases: [...found.leases] }).toEqual({ tokens: [], leases: [] });
      return true;
    });
  }, 60_000);

  it('what no lease of ours ever named (canaries, controls, lost answers) was at OpenBao for less than 30 s', () => {
    const lived = [...own.seen]
      .filter(([part]) => part.startsWith(CREDS) && !everNamed.has(part))
      .map(([part, { firstMs }]) => livedOnMs(part, firstMs));
    expect(lived.length).toBeGreaterThan(0);
    expect(Math.max(...lived)).toBeLessThan(ORPHAN_MS_MAX);
  });

  /** Without the time in which nobody could do anything about it. */
  function livedOnMs(part: string, sinceMs: number): number {
    const { lastMs = sinceMs } = own.seen.get(part) ?? {};
    return own.scene.witness.countedMs(sinceMs, Math.max(sinceMs, lastMs));
  }
});

/** What stands for a lease at OpenBao. */
function partsOf(record: LeaseRecord | undefined): { tokens: string[]; leases: string[] } {
  const { handle = {} } = record ?? {};
  const tokens = Object.entries(handle).flatMap(([name, value]) => (name.startsWith('accessor_') ? [value] : []));
  return { tokens, leases: handle['lease'] === undefined ? [] : [handle['lease']] };
}
