import { type Bundle, findWorkload } from '../core/bundle.js';
import { suggestion } from '../core/did-you-mean.js';
import { BrokerError } from '../core/errors.js';
import { newId } from '../core/ids.js';
import { deadBecause, type LeaseRecord } from '../core/lease.js';
import { matchesOf, namesCredentialsOnly, SELECTOR_MEMBERS, type Selector, selects } from '../core/selector.js';
import { parseSpiffeId, parseTrustDomain } from '../core/spiffe-id.js';
import type { EpochMs } from '../core/time.js';
import { undeclaredIn } from '../core/undeclared.js';
import type { LockRecord, RevocationRecord } from '../state/stores.js';
import { currentBundle } from './authenticate.js';
import type { Caller } from './caller.js';
import { endTask } from './end-task.js';
import { mustBeId, mustBeName } from './named.js';
import type { Parts } from './parts.js';
import { mustOperate } from './permitted.js';
import { record, recordingRefusals } from './refusal.js';

/** What a selector would hit now: the blast radius, before anything is done. */
export interface Preview {
  agents: string[];
  tasks: string[];
  leases: number;
  credentials: number;
  resources: { resource: string; leases: number; enforcement: string; residualMsMax: number }[];
  /** Credentials that only a rotation of the value ends. */
  unbounded: number;
  /** True when the count stopped at its limit: there is more. */
  atLeast: boolean;
}

export interface RevokeRequest {
  selector: Selector;
  reason: string;
  dryRun: boolean;
}

export interface Revoked {
  preview: Preview;
  revocation?: RevocationRecord;
  lock?: LockRecord;
  /** Such as: this agent can mint again; `stop` forbids it. What is in `unknown` is among them. */
  warnings: string[];
  /** What the selector names and this broker does not know, one sentence each. */
  unknown: string[];
}

/** After the last expiry of anything it can kill, an entry stays this long, for clocks that lag. */
const ENTRY_LINGERS_MS = 60_000;
const PREVIEW_LEASES_MAX = 100_000;
const NAMES_SHOWN_MAX = 1_000;

/**
 * Revokes everything a selector names: one script makes it effective at once, however many leases match; who they were is enumerated by a job
 * afterwards. Stopping never needs a second person. A bare revocation of an agent that can mint again says so.
 */
export async function revoke(parts: Parts, caller: Caller, request: RevokeRequest): Promise<Revoked> {
  return recordingRefusals(parts, caller, { action: 'revoke', detail: { selector: request.selector } }, async () => {
    mustOperate(parts, caller, 'revoke', { bound: !request.dryRun });
    const selector = checkSelector(currentBundle(parts), request.selector);
    const preview = await previewSelector(parts, selector);
    const unknown = await unknownIn(parts, selector);
    const warnings = [...unknown, ...warningsFor(parts, selector, preview)];
    if (request.dryRun) return { preview, warnings, unknown };
    if (selector.task !== undefined && Object.keys(selector).length === 1) {
      await endTask(parts, caller, { task: selector.task, state: 'revoked', reason: request.reason });
    }
    const revocation = await applySelector(parts, caller, selector, request.reason);
    return { preview, revocation, warnings, unknown };
  });
}

/** The script that makes a selector effective, with or without a lock; its enumeration is added to the queue at once. */
export async function applySelector(
  parts: Parts,
  caller: Caller | undefined,
  selector: Selector,
  reason: string,
  lock?: LockRecord,
): Promise<RevocationRecord> {
  const nowMs = parts.clock.now();
  const by = caller?.name ?? 'mayfly';
  const revocation: RevocationRecord = {
    id: newId('rev', parts.settings.cell, nowMs),
    selector,
    reason,
    by,
    ...(lock && { lockId: lock.id }),
    createdAtMs: nowMs,
  };
  const outcome = await parts.ledger.revoke({
    revocation,
    matches: matchesOf(selector, parts.selectorHash),
    untilMs: nowMs + parts.settings.ttlMsMax + ENTRY_LINGERS_MS,
    ...(lock && { lock }),
    nowMs,
    audit: record(parts, lock ? 'lock.set' : 'revocation.applied', caller, {
      action: lock ? 'lock' : 'revoke',
      effect: 'allow',
      reasons: [reason],
      detail: { selector, revocation: revocation.id, ...(lock && { lock: lock.id }) },
    }),
  });
  parts.schedule.add({ name: 'run-revocation', id: revocation.id });
  return { ...revocation, position: outcome.position };
}

export function checkSelector(bundle: Bundle, selector: Selector): Selector {
  const members = SELECTOR_MEMBERS.filter((member) => selector[member] !== undefined);
  if (members.length === 0) {
    throw new BrokerError(
      'invalid_request',
      'selector: name at least one member; there is no selector for everything.',
      {
        field: 'selector',
        hint: `Members: ${SELECTOR_MEMBERS.join(', ')}.`,
      },
    );
  }
  const malformed = (member: string, message: string) =>
    new BrokerError('invalid_request', `selector.${member}: ${message}`, { field: `selector.${member}` });
  mustBeId('lse', 'selector.lease', selector.lease);
  mustBeId('tsk', 'selector.task', selector.task);
  mustBeName(bundle, 'selector.agent', selector.agent);
  mustBeName(bundle, 'selector.opener', selector.opener);
  if (selector.trust_domain !== undefined && !parseTrustDomain(selector.trust_domain)) {
    throw malformed('trust_domain', 'the name of a trust domain, such as prod.example.');
  }
  if (selector.prefix !== undefined && !/^spiffe:\/\/[a-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/.test(selector.prefix)) {
    throw malformed('prefix', 'a SPIFFE ID prefix by whole segments, without a trailing slash.');
  }
  return selector;
}

/** Counts what lives now and is of the class. A preview only: what matters is decided by the entry, not by this count. */
export async function previewSelector(parts: Parts, selector: Selector): Promise<Preview> {
  const nowMs = parts.clock.now();
  const bundle = currentBundle(parts);
  const agents = new Set<string>();
  const tasks = new Set<string>();
  const resources = new Map<string, Preview['resources'][number]>();
  let unbounded = 0;
  let seen = 0;
  let leases = 0;
  let credentials = 0;
  let cursor: string | undefined;
  do {
    const page = await parts.views.leases({
      ...(selector.task && { task: selector.task }),
      ...(cursor !== undefined && { cursor }),
      limit: 500,
    });
    seen += page.items.length;
    for (const lease of page.items) {
      if (
        lease.state !== 'active' ||
        deadBecause(lease, { tasks: [], leases: [], revoked: false }, nowMs) ||
        !selects(selector, lease)
      )
        continue;
      if (lease.kind === 'credential') credentials++;
      else leases++;
      if (agents.size < NAMES_SHOWN_MAX) agents.add(lease.agent);
      if (lease.taskId && tasks.size < NAMES_SHOWN_MAX) tasks.add(lease.taskId);
      const resource = lease.resource ?? lease.backend ?? 'none';
      const enforcement = enforcementOf(bundle, lease);
      const at = resources.get(resource) ?? { resource, leases: 0, enforcement, residualMsMax: 0 };
      at.leases++;
      at.residualMsMax = Math.max(at.residualMsMax, residualMs(lease, enforcement, nowMs));
      resources.set(resource, at);
      if (lease.revocability?.kind === 'rotate-only') unbounded++;
    }
    cursor = page.cursor;
  } while (cursor !== undefined && seen < PREVIEW_LEASES_MAX);
  return {
    agents: [...agents].sort(),
    tasks: [...tasks].sort(),
    leases,
    credentials,
    resources: [...resources.values()],
    unbounded,
    atLeast: cursor !== undefined,
  };
}

/** How a revocation reaches it: of a token as its resource enforces it, of a credential as well as its backend can take it back. */
function enforcementOf(bundle: Bundle, { resource, revocability }: LeaseRecord): string {
  if (revocability) return revocability.kind;
  return bundle.resources.get(resource ?? '')?.enforcement ?? 'introspection';
}

function residualMs({ revocability, expiresAtMs }: LeaseRecord, enforcement: string, nowMs: EpochMs): number {
  if (revocability?.kind === 'eventual') return revocability.withinMs;
  return enforcement === 'expiry-only' ? expiresAtMs - nowMs : 0;
}

/** What a selector names and this broker does not know, with what may be meant: never a reason not to stop it. */
export async function unknownIn(parts: Parts, selector: Selector): Promise<string[]> {
  const found = undeclaredIn(currentBundle(parts), selector);
  if (selector.bundle !== undefined) {
    const known = (await parts.views.bundles().catch(() => undefined))?.map(({ digest }) => digest);
    const isKnown = known?.includes(selector.bundle) ?? true;
    if (!isKnown) found.push(`No bundle ${selector.bundle} is known${suggestion(selector.bundle, known ?? []) || '.'}`);
  }
  const trusted = parts.trustBundles.keyIds();
  if (selector.key !== undefined && !trusted.includes(selector.key)) {
    found.push(`No key ${selector.key} is trusted${suggestion(selector.key, trusted) || '.'}`);
  }
  return found;
}

function warningsFor(parts: Parts, selector: Selector, { unbounded }: Preview): string[] {
  const bundle = currentBundle(parts);
  const warnings: string[] = [];
  if (unbounded > 0) {
    warnings.push(`${unbounded} of these credentials work until somebody changes the value: revoking cannot end them.`);
  }
  if (namesCredentialsOnly(selector)) warnings.push('This selector names credentials; task tokens are not touched.');
  const id = selector.agent === undefined ? undefined : parseSpiffeId(selector.agent);
  if (id && findWorkload(bundle, id)) {
    warnings.push(`${id} can mint again at once: use \`mayfly stop\` (a lock) to forbid that too.`);
  }
  return warnings;
}
