import { isId } from './ids.js';

/**
 * How well a credential can be taken back, from the best to the worst: `instant` (dead when the backend has confirmed), `eventual` (at most
 * so much later), `expiry-only` (its own end is all there is), `rotate-only` (dead only when somebody changes the value).
 */
export type Revocability =
  | { kind: 'instant' }
  | { kind: 'eventual'; withinMs: number }
  | { kind: 'expiry-only'; ttlMsMax: number }
  | { kind: 'rotate-only' };

/**
 * What a backend needs to find a credential again: a role's name and oid, an accessor, a path. It stands in the lease, operators see it, and
 * nothing in it is secret or gives access.
 */
export type Handle = Readonly<Record<string, string>>;

/** What is handed to the agent, by field: `username`, `password`, `host`… Numbers stay numbers. */
export type SecretData = Readonly<Record<string, string | number>>;

/**
 * How the death of a credential is known. `confirmed`: its backend was asked and does not have it any more. `verified-dead`: also, the credential
 * itself was refused and a control login in the same second worked. `not-probed`: confirmed, and the probe that was wanted could not be made.
 * `expired`: it can only have ended by its own life. `unbounded`: it lives on until somebody rotates the value.
 */
export type Evidence = 'confirmed' | 'verified-dead' | 'not-probed' | 'expired' | 'unbounded';

const NAME = /^mayfly_([a-z0-9]{8})_([a-z0-9]{1,8})_([0-7][0-9a-hjkmnp-tv-z]{25})$/;

/**
 * The name of a lease's credential at its backend, at most 51 characters of `[a-z0-9_]`: whoever finds it there knows whose it is. The
 * installation keeps apart several Mayflies that share a backend.
 */
export function credentialName(installation: string, leaseId: string): string {
  return `mayfly_${installation}_${leaseId.slice('lse_'.length)}`;
}

/** The lease behind a name at a backend; undefined when the name is not one of this installation's. */
export function leaseIdOfName(installation: string, name: string): string | undefined {
  const match = NAME.exec(name);
  if (match?.[1] !== installation) return undefined;
  const id = `lse_${match[2]}_${match[3]}`;
  return isId('lse', id) ? id : undefined;
}
