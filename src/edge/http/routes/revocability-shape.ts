import { z } from 'zod';
import type { Revocability } from '../../../core/credential.js';
import { seconds } from '../wire.js';

/** How well a credential can be taken back. */
export const revocabilityShape = z.strictObject({
  kind: z.enum(['instant', 'eventual', 'expiry-only', 'rotate-only']),
  within_seconds: z.number().optional().meta({ description: '`eventual`: dead at most so much later' }),
  ttl_seconds_max: z.number().optional().meta({ description: '`expiry-only`: it cannot live longer' }),
});

export function revocabilityOnWire(revocability: Revocability): z.output<typeof revocabilityShape> {
  const { kind } = revocability;
  if (kind === 'eventual') return { kind, within_seconds: seconds(revocability.withinMs) };
  if (kind === 'expiry-only') return { kind, ttl_seconds_max: seconds(revocability.ttlMsMax) };
  return { kind };
}
