import { BrokerError } from '../core/errors.js';
import type { Evidence } from './caller.js';
import type { Parts } from './parts.js';
import { detailOf, noteDropped, systemRecord } from './refusal.js';
import { sampleRefusal } from './sample-refusals.js';

/** Runs what proves an identity; a refusal is sampled into the audit log and carries its record's id when it was written. */
export async function recordingStrangers<T>(parts: Parts, evidence: Evidence, prove: () => Promise<T>): Promise<T> {
  try {
    return await prove();
  } catch (error) {
    if (!(error instanceof BrokerError) || error.detail.decisionId || error.code === 'unavailable') throw error;
    parts.observe({ event: 'identity.refused', level: 'debug', code: error.code, reason: error.detail.reason });
    const { isWritten, dropped } = sampleRefusal(parts);
    if (dropped) await noteDropped(parts, undefined, dropped);
    if (!isWritten) throw error;
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
