import type { Job, JobName } from './stores.js';

/** The longest a messenger (a job) is waited for: what one was sent for as well is due for the sweeper so much later. */
export const MESSENGER_MS = 1_000;

/**
 * Members of the due index: `<job>:<id>`, and `<job>@<backend>:<id>` for work at a backend, so that whoever takes it knows whose hands it
 * needs without a look at the lease. No job's or backend's name holds a colon or an at sign; ids may.
 */
export function dueMember({ name, id, backend }: Job): string {
  return `${name}${backend ? `@${backend}` : ''}:${id}`;
}

export function readDue(member: string): Job {
  const colon = member.indexOf(':');
  const [name, backend] = member.slice(0, colon).split('@', 2);
  return { name: name as JobName, id: member.slice(colon + 1), ...(backend && { backend }) };
}

/** The one thing due about a credential: at its intent's deadline, at its end, when it is to be revoked, when to try again. */
export function retireMember(lease: { id: string; backend?: string }): string {
  return dueMember({ name: 'retire-credential', id: lease.id, ...(lease.backend && { backend: lease.backend }) });
}
