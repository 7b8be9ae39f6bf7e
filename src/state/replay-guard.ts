import type { Cell } from './cell.js';
import type { ReplayGuard } from './stores.js';

const DAY_MS = 86_400_000;
const HOLD_MS = 60_000;

/** Things that may happen once. Each is one command or one script on one key; when Redis does not answer, nothing happens. */
export function redisReplayGuard({ line, keys, encryption }: Cell): ReplayGuard {
  return {
    once: async (key, untilMs, nowMs) => {
      if (untilMs <= nowMs) return false;
      return (await line.run('use-once', [keys.once(key)], [untilMs - nowMs], { nowMs })) === 1;
    },

    claim: async (key, bodyDigest, _nowMs, holdMs = HOLD_MS) => {
      const own = `${bodyDigest}|`;
      const there = await line.ask((client) => client.set(keys.idempotency(key), own, 'PX', holdMs, 'NX', 'GET'));
      if (there === null) return { outcome: 'new' };
      const bar = there.indexOf('|');
      if (there.slice(0, bar) !== bodyDigest) return { outcome: 'other_body' };
      if (bar === there.length - 1) return { outcome: 'in_progress' };
      const answer = encryption.decrypt('answer', keys.idempotency(key), there.slice(bar + 1));
      return { outcome: 'answered', answer: answer.toString() };
    },

    answer: async (key, answer) => {
      const place = keys.idempotency(key);
      const there = await line.ask((client) => client.get(place));
      const digest = there?.slice(0, there.indexOf('|'));
      if (digest === undefined) return;
      const encrypted = encryption.encrypt('answer', place, Buffer.from(answer));
      await line.ask((client) => client.set(place, `${digest}|${encrypted}`, 'PX', DAY_MS, 'XX'));
    },

    release: async (key) => {
      await line.ask((client) => client.del(keys.idempotency(key)));
    },

    nameLease: async (key, { bodyDigest, leaseId, inPlaceOf = '' }, nowMs) => {
      const words = [bodyDigest, leaseId, inPlaceOf, DAY_MS];
      const [outcome, other] = (await line.run('name-lease', [keys.request(key)], words, { nowMs })) as [
        'named' | 'taken' | 'other_body' | 'given_up',
        string?,
      ];
      return outcome === 'given_up' ? { outcome, leaseId: other as string } : { outcome };
    },
  };
}
