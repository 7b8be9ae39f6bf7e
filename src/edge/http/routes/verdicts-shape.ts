import { z } from 'zod';
import type { Verdicts } from '../../../broker/re-evaluate.js';

/** What judging live leases again says of them. */
export const verdictsShape = z.strictObject({
  kept: z.int(),
  dying: z.int().meta({ description: 'How many would be revoked' }),
  revoked: z
    .array(z.strictObject({ lease: z.string(), agent: z.string(), reason: z.string() }))
    .meta({ description: 'Those that would be revoked; at most 1,000 of them' }),
  at_least: z.boolean().meta({ description: 'The count stopped at its limit: there is more' }),
});

export function verdictsOnWire({ atLeast, ...verdicts }: Verdicts): z.output<typeof verdictsShape> {
  return { ...verdicts, at_least: atLeast };
}
