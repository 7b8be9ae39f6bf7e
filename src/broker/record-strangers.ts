import { BrokerError } from '../core/errors.js';
import type { EpochMs } from '../core/time.js';
import type { Evidence } from './caller.js';
import type { Parts } from './parts.js';
import { detailOf, systemRecord } from './refusal.js';

/** Refusals of callers nobody knows: this many a second are written one by one, the rest are counted, so that nobody fills the store. */
const WRITTEN_PER_SECOND = 10;
const SECOND_MS = 1_000;

interface Window {
  startedAtMs: EpochMs;
  written: number;
  counted: number;
}

const windows = new WeakMap<Parts, Window>();

/** Runs what proves an identity; a refusal is sampled into the audit log and carries its record's id when it was written. */
export async function recordingStrangers<T>(parts: Parts, evidence: Evidence, prove: () => Promise<T>): Promise<T> {
  try {
    return await prove();
  } catch (error) {
    if (!(error instanceof BrokerError) || error.detail.decisionId || error.code === 'unavailable') throw error;
    const window = await currentWindow(parts);
    parts.observe({ event: 'identity.refused', level: 'debug', code: error.code, reason: error.detail.reason });
    if (window.written >= WRITTEN_PER_SECOND) {
      window.counted++;
      throw error;
    }
    window.written++;
    const refusal = systemRecord(parts, 'request.refused', {
      effect: 'deny',
      code: error.code,
      reasons: [error.detail.reason ?? error.message],
      ...detailOf(error),
      requestId: evidence.requestId,
      ...(evidence.traceId && { traceId: evidence.traceId }),
    });
    try {
      await parts.ledger.note(refusal);
    } catch {
      throw error;
    }
    throw new BrokerError(error.code, error.message, { ...error.detail, decisionId: refusal.id, cause: error });
  }
}

/** This second's window; what the one before only counted is written down as a number. */
async function currentWindow(parts: Parts): Promise<Window> {
  const nowMs = parts.clock.now();
  const before = windows.get(parts);
  if (before && nowMs - before.startedAtMs < SECOND_MS && nowMs >= before.startedAtMs) return before;
  const window = { startedAtMs: nowMs, written: 0, counted: 0 };
  windows.set(parts, window);
  if (before && before.counted > 0) {
    const detail = { refusals: before.counted, from: new Date(before.startedAtMs).toISOString() };
    await parts.ledger.note(systemRecord(parts, 'audit.dropped', { detail })).catch(() => undefined);
  }
  return window;
}
