import { z } from 'zod';
import type { Preview, Revoked } from '../../../broker/revoke.js';
import { defined, instant, seconds } from '../wire.js';
import { moment, selector, texts } from './shapes.js';

type RevocationRecord = NonNullable<Revoked['revocation']>;
type LockRecord = NonNullable<Revoked['lock']>;

export const previewShape = z.strictObject({
  agents: texts,
  tasks: texts,
  leases: z.int(),
  credentials: z.int(),
  resources: z.array(
    z.strictObject({
      resource: z.string(),
      leases: z.int(),
      enforcement: z.string(),
      residual_seconds_max: z.int().meta({ description: 'How long what can only expire stays usable' }),
    }),
  ),
  at_least: z.boolean().meta({ description: 'The count stopped at its limit: there is more' }),
});

export function previewOnWire(preview: Preview): z.output<typeof previewShape> {
  return {
    agents: preview.agents,
    tasks: preview.tasks,
    leases: preview.leases,
    credentials: preview.credentials,
    resources: preview.resources.map(({ residualMsMax, ...resource }) => ({
      ...resource,
      residual_seconds_max: seconds(residualMsMax + 999),
    })),
    at_least: preview.atLeast,
  };
}

export const revocationShape = z.strictObject({
  id: z.string(),
  selector,
  reason: z.string(),
  by: z.string(),
  lock: z.string().optional(),
  created_at: moment,
  position: z.string().optional().meta({ description: 'Every matching token older than this is dead' }),
  done: z.boolean().meta({ description: 'Everything it hit has been enumerated; it was effective at once' }),
  finished_at: moment.optional(),
  found: z
    .strictObject({ leases: z.int(), tasks: z.int(), agents: z.int(), credentials: z.int() })
    .optional()
    .meta({ description: 'Enumerated so far; numbers of tasks and agents beyond some hundreds to within one percent' }),
  remains: z
    .array(z.strictObject({ resource: z.string(), until: moment }))
    .optional()
    .meta({ description: 'Where what was hit can only expire, and when the last of it does' }),
});

export function revocationOnWire(revocation: RevocationRecord): z.output<typeof revocationShape> {
  return defined({
    id: revocation.id,
    selector: revocation.selector,
    reason: revocation.reason,
    by: revocation.by,
    lock: revocation.lockId,
    created_at: instant(revocation.createdAtMs),
    position: revocation.position,
    done: revocation.done ?? false,
    finished_at: instant(revocation.finishedAtMs),
    found: revocation.found,
    remains:
      revocation.remains &&
      Object.entries(revocation.remains).map(([resource, endMs]) => ({ resource, until: instant(endMs) })),
  });
}

export const lockShape = z.strictObject({
  id: z.string(),
  selector,
  reason: z.string(),
  by: z.string(),
  system: z.boolean().meta({ description: 'Set for a key that left its trust bundle; lifted when it is back' }),
  created_at: moment,
  expires_at: moment.optional(),
  lift_requested_by: z.string().optional(),
  lift_requested_at: moment.optional(),
});

export function lockOnWire(lock: LockRecord): z.output<typeof lockShape> {
  return defined({
    id: lock.id,
    selector: lock.selector,
    reason: lock.reason,
    by: lock.by,
    system: lock.system ?? false,
    created_at: instant(lock.createdAtMs),
    expires_at: instant(lock.expiresAtMs),
    lift_requested_by: lock.liftRequestedBy,
    lift_requested_at: instant(lock.liftRequestedAtMs),
  });
}

export const revokedShape = z.strictObject({
  preview: previewShape,
  revocation: revocationShape.optional(),
  lock: lockShape.optional(),
  warnings: texts,
  unknown: texts.optional().meta({
    description:
      'Those of the warnings that say what the selector names and this broker does not know: it may be mistyped',
  }),
});

export function revokedOnWire({
  preview,
  revocation,
  lock,
  warnings,
  unknown,
}: Revoked): z.output<typeof revokedShape> {
  return defined({
    preview: previewOnWire(preview),
    revocation: revocation && revocationOnWire(revocation),
    lock: lock && lockOnWire(lock),
    warnings,
    unknown: unknown.length > 0 ? unknown : undefined,
  });
}
