import type { Backend } from '../plugins/backends/contract.js';
import type { CredentialCount, Reconciled } from '../state/stores.js';
import type { Caller } from './caller.js';
import type { Parts, SecretStatus } from './parts.js';
import { mustOperate } from './permitted.js';
import { notFound, recordingRefusals } from './refusal.js';

export interface BackendView {
  name: string;
  kind: string;
  /** `degraded`: it answers, and not all of its secrets can be had. */
  state: 'up' | 'down' | 'degraded';
  /** Open: it does not answer, and only a trial now and then asks it. */
  breaker: 'closed' | 'open';
  problem?: string;
  pending: number;
  active: number;
  revoking: number;
  stuck: number;
  /** The latest comparison of what is there with the leases; absent where none can be or was made. */
  reconciled?: Reconciled;
  secrets: SecretStatus[];
}

/** Every backend of this broker: whether it answers, what can be had, and what is under way there. */
export function listBackends(parts: Parts, caller: Caller): Promise<BackendView[]> {
  return recordingRefusals(parts, caller, { action: 'list_backends' }, async () => {
    mustOperate(parts, caller, 'view', { bound: false });
    const counts = await parts.views.credentialCounts();
    return Promise.all(parts.backends.all().map((backend) => viewOf(parts, backend, counts)));
  });
}

/** Tries every secret of a backend on the real thing, now. */
export function checkBackend(parts: Parts, caller: Caller, name: string): Promise<BackendView> {
  return recordingRefusals(parts, caller, { action: 'check_backend' }, async () => {
    mustOperate(parts, caller, 'view', { bound: false });
    const backend = parts.backends.get(name);
    if (!backend) throw notFound('backend', `${caller.name} asked for ${name}`);
    await parts.secretChecks.checkBackend(name);
    return viewOf(parts, backend, await parts.views.credentialCounts());
  });
}

async function viewOf(
  parts: Parts,
  { name, kind, guard }: Backend,
  counts: readonly CredentialCount[],
): Promise<BackendView> {
  const own = counts.filter(({ backend }) => backend === name);
  const inState = (state: string) => own.find((one) => one.state === state)?.count ?? 0;
  const secrets = parts.secretChecks.status().filter(({ backend }) => backend === name);
  const closed = secrets.filter(({ problem }) => problem !== undefined);
  const breaker = guard?.state ?? 'closed';
  const problem = (breaker === 'open' ? guard?.problem : undefined) ?? closed[0]?.problem;
  const reconciled = await parts.views.reconciled(name);
  const isDown = breaker === 'open' || (closed.length > 0 && closed.length === secrets.length);
  return {
    name,
    kind,
    state: isDown ? 'down' : closed.length > 0 ? 'degraded' : 'up',
    breaker,
    ...(problem !== undefined && { problem }),
    pending: inState('pending'),
    active: inState('active'),
    revoking: inState('revoking'),
    stuck: own.reduce((sum, { stuck }) => sum + stuck, 0),
    ...(reconciled && { reconciled }),
    secrets,
  };
}
