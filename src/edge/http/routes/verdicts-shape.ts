import { z } from 'zod';

/** What judging live leases again says of them. */
export const verdictsShape = z.strictObject({
  kept: z.int(),
  revoked: z.array(z.strictObject({ lease: z.string(), agent: z.string(), reason: z.string() })),
});
