import { activateBundle } from '../../src/broker/activate-bundle.js';
import type { Caller } from '../../src/broker/caller.js';
import { changeContext } from '../../src/broker/change-context.js';
import { endTask } from '../../src/broker/end-task.js';
import { liftLock, lock } from '../../src/broker/lock.js';
import { mint } from '../../src/broker/mint.js';
import type { Parts } from '../../src/broker/parts.js';
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
import type { Selector } from '../../src/core/selector.js';
import { parseSpiffeId, type SpiffeId, trustDomainOf } from '../../src/core/spiffe-id.js';
import type { TaskRecord, TerminalState } from '../../src/core/task.js';
import type { Job } from '../../src/state/stores.js';
import { PEOPLE_ISSUER, svid } from '../fakes/identity.js';
import { fakeParts, ISSUER } from '../fakes/parts.js';
import { fakeBundle, ORDERS } from '../fakes/policy.js';
import type { FakeStores } from '../fakes/stores.js';
import { doJob, type Given, type Hands, RISKS, riskIn, TTL_MS } from './ledger-verbs.js';
import { HOLDERS, OPENER, World, type WorldOptions } from './world.js';

const BUNDLES: Bundle[] = [fakeBundle('bundle-0'), fakeBundle('bundle-1')];

/** The same world, moved by the product's own verbs; only credentials are still made by the small ones. */
export class ProductWorld extends World {
  readonly #parts: Parts[];
  #tasksOpened = 0;

  constructor(options: WorldOptions = {}) {
    super({ ...options, bundles: BUNDLES, judgesCredentials: false });
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

  /** Not below a token: enumerating those is the business of the credentials' own verbs. */
  override issue(holder: number, taskId: string) {
    return super.issue(holder, taskId);
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
      job.name === 'retire-credential' ? doJob(hands, job) : work(this.#with(hands), job);
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
    };
  }

  #partsOf(stores: FakeStores): Parts {
    return fakeParts({
      clock: this.clock,
      stores,
      settings: { ttlMsDefault: TTL_MS },
      bundles: BUNDLES.map((bundle) => ({ bundle, rule: (question) => this.#rule(bundle, question) })),
    });
  }

  /** The world's policy of one number, asked the way the product asks. */
  #rule(bundle: Bundle, question: PolicyQuestion): 'allow' | 'deny' {
    if (question.action !== 'mint' && question.action !== 'delegate') return 'allow';
    const task = question.context['task'] as { context?: Record<string, unknown> } | undefined;
    return this.allows(bundle.digest, riskIn(task?.context ?? {})) ? 'allow' : 'deny';
  }
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
