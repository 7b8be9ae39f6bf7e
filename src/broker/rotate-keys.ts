import { asRecorded } from '../core/as-recorded.js';
import { BrokerError } from '../core/errors.js';
import type { EpochMs } from '../core/time.js';
import type { RingKey } from '../plugins/signers/contract.js';
import type { Caller } from './caller.js';
import type { Parts } from './parts.js';
import { mustOperate } from './permitted.js';
import { notFound, record, recordingRefusals } from './refusal.js';

/** How long a key is published before it may sign, so that every cached JWKS has it: the cache's life and the skew. */
export const PUBLISHED_BEFORE_USE_MS = 120_000;

/** A key as operators see it: never its private half. */
export interface KeyView {
  kid: string;
  alg: string;
  state: RingKey['state'];
  createdAtMs: EpochMs;
  activatedAtMs?: EpochMs;
  retiredAtMs?: EpochMs;
}

export async function listKeys(parts: Parts, caller: Caller): Promise<KeyView[]> {
  return recordingRefusals(parts, caller, { action: 'list_keys' }, async () => {
    mustOperate(parts, caller, 'view', { bound: false });
    await parts.keys.refresh();
    return parts.keys.all().map(viewOf);
  });
}

/** Makes a key and publishes it; it does not sign yet. */
export async function prepareKey(parts: Parts, caller: Caller, request: { alg: RingKey['alg'] }): Promise<KeyView> {
  return moveRing(parts, caller, 'prepare', async (ring) => {
    const made = await parts.signer.makeKey(request.alg, parts.clock.now());
    return { ring: [...ring, made], moved: made };
  });
}

/** A prepared key signs from now on; the one that did goes on verifying until its last token has ended. */
export async function activateKey(parts: Parts, caller: Caller, request: { kid: string }): Promise<KeyView> {
  return moveRing(parts, caller, 'activate', async (ring) => {
    const nowMs = parts.clock.now();
    const key = keyOf(ring, request.kid);
    if (key.state === 'active') return { ring, moved: key };
    if (key.state !== 'prepare') throw new BrokerError('conflict', `A ${key.state} key does not become active again.`);
    const waitMs = key.createdAtMs + PUBLISHED_BEFORE_USE_MS - nowMs;
    if (waitMs > 0 && ring.some((one) => one.state === 'active')) {
      throw new BrokerError(
        'conflict',
        `The key has to be published for ${PUBLISHED_BEFORE_USE_MS / 1000} s before it signs.`,
        {
          hint: `Try again in ${Math.ceil(waitMs / 1000)} s, or taint the active key if it is compromised.`,
        },
      );
    }
    const moved: RingKey = { ...key, state: 'active', activatedAtMs: nowMs };
    return {
      ring: ring.map((one) =>
        one.kid === key.kid
          ? moved
          : one.state === 'active'
            ? { ...one, state: 'retiring' as const, retiredAtMs: nowMs }
            : one,
      ),
      moved,
    };
  });
}

/** Every token this key signed is dead at once, for good; minting goes on with the next key. Each later use raises an alarm. */
export async function taintKey(
  parts: Parts,
  caller: Caller,
  request: { kid: string; reason: string },
): Promise<KeyView> {
  return moveRing(
    parts,
    caller,
    'taint',
    async (ring) => {
      const nowMs = parts.clock.now();
      const key = keyOf(ring, request.kid);
      if (key.state === 'tainted') return { ring, moved: key };
      const { privateKey: _, ...rest } = key;
      const moved: RingKey = { ...rest, state: 'tainted', retiredAtMs: nowMs };
      let others = ring.filter((one) => one.kid !== key.kid);
      if (key.state === 'active') others = await withNext(parts, others, key.alg, nowMs);
      return { ring: [...others, moved], moved, tainted: true };
    },
    request.reason,
  );
}

/** The first ring of a new cell. */
export async function ensureKeys(parts: Parts): Promise<void> {
  await parts.keys.refresh();
  if (parts.keys.all().length > 0) return;
  const made = await parts.signer.makeKey('ES256', parts.clock.now());
  await parts.ledger.saveKeyRing({
    ring: [{ ...made, state: 'active', activatedAtMs: parts.clock.now() } satisfies RingKey],
    fromVersion: 0,
    nowMs: parts.clock.now(),
    audit: record(parts, 'key.moved', undefined, {
      action: 'prepare',
      detail: { kid: made.kid, state: 'active', first: true },
    }),
  });
  await parts.keys.refresh();
}

/** Retired keys leave the ring when the last token they signed has ended; tainted ones stay, so that their use is noticed. */
export function withoutEnded(ring: readonly RingKey[], nowMs: EpochMs, ttlMsMax: number): RingKey[] {
  return ring.filter((key) => key.state !== 'retiring' || (key.retiredAtMs ?? 0) + ttlMsMax + 60_000 > nowMs);
}

interface Move {
  ring: RingKey[];
  moved: RingKey;
  tainted?: boolean;
}

const MOVES_MAX = 3;

/** Reads the ring, moves a key, writes it by compare-and-set; a ring that moved meanwhile is read again. */
async function moveRing(
  parts: Parts,
  caller: Caller,
  action: string,
  move: (ring: RingKey[]) => Promise<Move>,
  reason?: string,
): Promise<KeyView> {
  return recordingRefusals(parts, caller, { action: `${action}_key` }, async () => {
    mustOperate(parts, caller, 'rotate', { bound: true });
    for (let moves = 0; moves < MOVES_MAX; moves++) {
      await parts.keys.refresh();
      const nowMs = parts.clock.now();
      const { ring, moved, tainted } = await move(parts.keys.all());
      const outcome = await parts.ledger.saveKeyRing({
        ring: withoutEnded(ring, nowMs, parts.settings.ttlMsMax),
        fromVersion: parts.keys.version(),
        ...(tainted && { taintedKid: moved.kid }),
        nowMs,
        audit: record(parts, 'key.moved', caller, {
          action,
          effect: 'allow',
          ...(reason !== undefined && { reasons: [reason] }),
          detail: { kid: moved.kid, state: moved.state },
        }),
      });
      if (outcome.outcome === 'moved_on') continue;
      await parts.keys.refresh();
      return viewOf(moved);
    }
    throw new BrokerError('unavailable', 'The key ring keeps moving; try again.', { retryAfterSeconds: 1 });
  });
}

/** The active key is gone: a prepared one takes over at once, else a new one. Nobody waits for caches while a key is compromised. */
async function withNext(parts: Parts, ring: RingKey[], alg: RingKey['alg'], nowMs: EpochMs): Promise<RingKey[]> {
  const prepared = ring.find((key) => key.state === 'prepare' && key.alg === alg);
  const next = prepared ?? (await parts.signer.makeKey(alg, nowMs));
  return [...ring.filter((key) => key.kid !== next.kid), { ...next, state: 'active', activatedAtMs: nowMs }];
}

function keyOf(ring: readonly RingKey[], kid: string): RingKey {
  const key = ring.find((one) => one.kid === kid);
  if (!key) throw notFound('key', asRecorded('name', kid));
  return key;
}

function viewOf(key: RingKey): KeyView {
  const { kid, alg, state, createdAtMs, activatedAtMs, retiredAtMs } = key;
  return {
    kid,
    alg,
    state,
    createdAtMs,
    ...(activatedAtMs !== undefined && { activatedAtMs }),
    ...(retiredAtMs !== undefined && { retiredAtMs }),
  };
}
