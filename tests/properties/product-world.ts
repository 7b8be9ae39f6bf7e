import { z } from 'zod';
import { activateBundle } from '../../src/broker/activate-bundle.js';
import type { Caller } from '../../src/broker/caller.js';
import { changeContext } from '../../src/broker/change-context.js';
import { endTask } from '../../src/broker/end-task.js';
import { issue } from '../../src/broker/issue.js';
import { liftLock, lock } from '../../src/broker/lock.js';
import { mint } from '../../src/broker/mint.js';
import type { Parts } from '../../src/broker/parts.js';
import { RECONCILE_EVERY_MS, reconcile } from '../../src/broker/reconcile.js';
import { renew } from '../../src/broker/renew.js';
import { revoke } from '../../src/broker/revoke.js';
import { startTask } from '../../src/broker/start-task.js';
import { resumeTask, suspendTask } from '../../src/broker/suspend-task.js';
import { ACCESS_TOKEN_TYPE } from '../../src/broker/token-request.js';
import { work } from '../../src/broker/work.js';
import type { WorkloadDeclaration } from '../../src/core/agent.js';
import type { Bundle } from '../../src/core/bundle.js';
import { readTaskClaims } from '../../src/core/claims.js';
import type { PolicyQuestion } from '../../src/core/decision.js';
import type { LeaseRecord } from '../../src/core/lease.js';
import { Secret } from '../../src/core/secret.js';
import type { Selector } from '../../src/core/selector.js';
import { parseSpiffeId, type SpiffeId, trustDomainOf } from '../../src/core/spiffe-id.js';
import type { TaskRecord, TerminalState } from '../../src/core/task.js';
import type { Backend } from '../../src/plugins/backends/contract.js';
import type { Job } from '../../src/state/stores.js';
import { fakeBackends } from '../fakes/backend.js';
import { PEOPLE_ISSUER, svid } from '../fakes/identity.js';
import { fakeParts, ISSUER } from '../fakes/parts.js';
import { fakeBundle, ORDERS } from '../fakes/policy.js';
import type { FakeStores } from '../fakes/stores.js';
import { type Given, type Hands, RISKS, riskIn, TTL_MS } from './ledger-verbs.js';
import { HOLDERS, OPENER, World, type WorldOptions } from './world.js';

const BACKEND = 'pg';
const BUNDLES: Bundle[] = [fakeBundle('bundle-0'), fakeBundle('bundle-1')];

/** The same world, moved by the product's own verbs. */
export class ProductWorld extends World {
  readonly #parts: Parts[];
  #tasksOpened = 0;

  constructor(options: WorldOptions = {}) {
    super({ ...options, bundles: BUNDLES });
    this.#parts = this.brokers.map((stores) => this.#partsOf(stores));
  }

  override startTask(hands: Hands, parent?: string): Promise<TaskRecord | undefined> {
    this.#tasksOpened += 1;
    const onContextChange = this.#tasksOpened % 4 === 0 ? 'revoke' : 're-evaluate';
    return startTask(this.#with(hands), orchestrator, {
      type: 'refund',
      params: {},
      purpose: 'refund order 42',
      agents: HOLDERS.map((holder) => holder.agent),
      context: {},
      ttlMs: 600_000,
      onContextChange,
      ...(parent !== undefined && { parent }),
    }).then(({ task }) => task);
  }

  override mint(holder: number, taskId: string, parent?: Given, tools?: string[]) {
    return async (hands: Hands): Promise<Given> => {
      const { agent } = HOLDERS[holder % HOLDERS.length] as (typeof HOLDERS)[number];
      const evidence = { method: 'POST', url: `${ISSUER}/oauth2/token`, requestId: 'req_a_1' };
      const minted = await mint(this.#with(hands), {
        evidence,
        grantType: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subjectToken: parent?.token ?? svid(agent),
        subjectTokenType: parent ? ACCESS_TOKEN_TYPE : 'urn:ietf:params:oauth:token-type:jwt',
        ...(parent && { actorToken: svid(agent), actorTokenType: 'urn:ietf:params:oauth:token-type:jwt' }),
        // What is for Mayfly itself can be passed on.
        resources: [holder % 3 === 2 ? ORDERS : ISSUER],
        audiences: [],
        ...(parent === undefined && { scope: `task:${taskId}` }),
        ...(parent && tools && { scope: tools.join(' ') }),
      });
      return this.#given(minted.accessToken.expose());
    };
  }

  override issue(holder: number, taskId: string, parent?: Given) {
    return async (hands: Hands): Promise<Given> => {
      const parts = this.#with(hands);
      const caller = agent(parent?.claims.client_id ?? (HOLDERS[holder % HOLDERS.length]?.agent as string), parent);
      const { leaseId } = await issue(parts, caller, { secret: 'orders-db', task: taskId, ttlMs: TTL_MS });
      const lease = structuredClone(this.line.state.leases.get(leaseId)) as LeaseRecord;
      // A credential has no claims; what the oracle asks of it is asked of its lease.
      return { lease, claims: { jti: leaseId } as Given['claims'] };
    };
  }

  override renew({ lease }: Given) {
    return (hands: Hands): Promise<unknown> =>
      renew(this.#with(hands), agent(lease.agent), { lease: lease.id, incrementMs: TTL_MS });
  }

  override reconcile(hands: Hands): Promise<void> {
    const parts = this.#with(hands);
    this.clock.advance(RECONCILE_EVERY_MS);
    return reconcile(parts, parts.backends.get(BACKEND) as Backend, new AbortController().signal);
  }

  override async backendIsBack(): Promise<void> {
    await this.brokers[0]?.ledger.hasten({ backend: BACKEND, nowMs: this.clock.now() });
  }

  override end(taskId: string, state: TerminalState) {
    return (hands: Hands) =>
      endTask(this.#with(hands), orchestrator, { task: taskId, state: state as 'completed' | 'failed' | 'cancelled' });
  }

  override suspend(taskId: string) {
    return (hands: Hands) => suspendTask(this.#with(hands), orchestrator, { task: taskId });
  }

  override resume(taskId: string) {
    return (hands: Hands) => resumeTask(this.#with(hands), orchestrator, { task: taskId });
  }

  override changeContext(taskId: string, risk: number) {
    return async (hands: Hands): Promise<void> => {
      await changeContext(this.#with(hands), orchestrator, { task: taskId, context: { risk: RISKS[risk] } });
    };
  }

  override revoke(selector: Selector, withLock: boolean) {
    return async (hands: Hands): Promise<void> => {
      const request = { selector, reason: 'stop', dryRun: false };
      const parts = this.#with(hands);
      const done = withLock
        ? await lock(parts, person('alice'), request)
        : await revoke(parts, person('alice'), request);
      if ('lock' in done && done.lock) this.locks.push(done.lock.id);
    };
  }

  override liftLock(lockId: string) {
    return async (hands: Hands): Promise<void> => {
      await liftLock(this.#with(hands), person('bob'), { id: lockId });
      await liftLock(this.#with(hands), person('carol'), { id: lockId });
    };
  }

  override activateBundle(digest: string) {
    return async (hands: Hands): Promise<void> => {
      const bundle = BUNDLES.find((one) => one.digest === digest);
      await activateBundle(this.#with(hands), person('alice'), { files: bundle?.files ?? {} });
    };
  }

  override job(job: Job) {
    return (hands: Hands): Promise<void> =>
      work(this.#with(hands), job.name === 'retire-credential' ? { ...job, backend: BACKEND } : job);
  }

  #given(token: string): Given {
    const payload = JSON.parse(Buffer.from(token.split('.')[1] as string, 'base64url').toString()) as Record<
      string,
      unknown
    >;
    const claims = readTaskClaims(payload);
    if (!claims) throw new Error('the product minted a token that is none');
    const lease = this.line.state.leases.get(claims.jti);
    return { claims, token, lease: structuredClone(lease) as LeaseRecord };
  }

  /** The broker's parts, with this process' own places to stand still at. */
  #with(hands: Hands): Parts {
    return {
      ...(this.#parts[hands.broker] as Parts),
      ledger: hands.ledger,
      views: hands.views,
      feed: hands.feed,
      backends: fakeBackends(this.#backendOf(hands)),
    };
  }

  /** The world's backend as the product knows one, with this process' own places to stand still at. */
  #backendOf({ backend }: Hands): Backend {
    return {
      name: BACKEND,
      kind: 'fake',
      bounds: { issuesMax: 1, revocationsMax: 1, issueTimeoutMs: 2_000, revokeTimeoutMs: 1_000 },
      secretSettings: z.looseObject({}),
      revocability: () => ({ kind: 'instant' }),
      plan: ({ leaseId }) => ({ role: leaseId }),
      issue: async ({ leaseId, deadlineMs, expiresAtMs }) => {
        await backend.make(leaseId, deadlineMs);
        return { data: new Secret({ password: leaseId }), handle: {}, expiresAtMs, renewable: true };
      },
      renew: async ({ leaseId }, expiresAtMs) => {
        await backend.renew(leaseId);
        return { expiresAtMs };
      },
      revoke: ({ leaseId }) => backend.revoke(leaseId),
      confirm: async ({ leaseId }) =>
        (await backend.exists(leaseId)) ? { state: 'there', detail: 'it exists' } : { state: 'gone' },
      find: async function* () {
        for (const leaseId of backend.live()) yield { leaseId, handle: { role: leaseId } };
      },
      check: async () => [],
      close: async () => {},
    };
  }

  #partsOf(stores: FakeStores): Parts {
    return fakeParts({
      clock: this.clock,
      stores,
      settings: { ttlMsDefault: TTL_MS },
      parts: { secretChecks: { problemOf: () => undefined } as unknown as Parts['secretChecks'] },
      bundles: BUNDLES.map((bundle) => ({ bundle, rule: (question) => this.#rule(bundle, question) })),
    });
  }

  /** The world's policy of one number, asked the way the product asks. */
  #rule(bundle: Bundle, question: PolicyQuestion): 'allow' | 'deny' {
    if (!['mint', 'delegate', 'read'].includes(question.action)) return 'allow';
    const task = question.context['task'] as { context?: Record<string, unknown> } | undefined;
    return this.allows(bundle.digest, riskIn(task?.context ?? {})) ? 'allow' : 'deny';
  }
}

/** An agent by its own identity, or by a token of the task. */
function agent(name: string, parent?: Given): Caller {
  const spiffeId = parseSpiffeId(name) as SpiffeId;
  return {
    principal: {
      kind: 'agent',
      identity: {
        kind: 'workload',
        proof: parent ? 'task-token' : 'jwt-svid',
        spiffeId,
        trustDomain: trustDomainOf(spiffeId),
        expiresAtMs: Number.MAX_SAFE_INTEGER,
        keyId: 'dev.mayfly#svid-1',
        attributes: {},
      },
      declaration: BUNDLES[0]?.workloads.find((workload) => workload.spiffeId === name) as WorkloadDeclaration,
    },
    name,
    bound: false,
    binding: 'none',
    requestId: 'req_a_3',
    ...(parent && { token: parent.claims }),
  };
}

const openerId = parseSpiffeId(OPENER) as SpiffeId;

const orchestrator: Caller = {
  principal: {
    kind: 'orchestrator',
    identity: {
      kind: 'workload',
      proof: 'jwt-svid',
      spiffeId: openerId,
      trustDomain: trustDomainOf(openerId),
      expiresAtMs: Number.MAX_SAFE_INTEGER,
      keyId: 'dev.mayfly#svid-1',
      attributes: {},
    },
    declaration: BUNDLES[0]?.workloads.find((workload) => workload.spiffeId === OPENER) as WorkloadDeclaration,
  },
  name: OPENER,
  bound: false,
  binding: 'none',
  requestId: 'req_a_1',
};

function person(subject: string): Caller {
  return {
    principal: {
      kind: 'person',
      identity: {
        kind: 'person',
        proof: 'oidc',
        issuer: PEOPLE_ISSUER,
        subject,
        roles: ['operator'],
        issuedAtMs: 0,
        expiresAtMs: Number.MAX_SAFE_INTEGER,
        keyId: `${PEOPLE_ISSUER}#people-1`,
      },
    },
    name: `${PEOPLE_ISSUER}#${subject}`,
    bound: true,
    binding: 'mtls',
    requestId: 'req_a_2',
  };
}
