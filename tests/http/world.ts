import { FakeBackend, fakeBackends } from '../fakes/backend.js';
import { person, svid } from '../fakes/identity.js';
import { EMAILS, ORCHESTRATOR, ORDERS, ORDERS_TOOL, REFUNDS, type Rule } from '../fakes/policy.js';
import { VirtualClock } from '../fakes/virtual-clock.js';
import { type Answer, bearer, type Call, type OpenDoor, openDoor } from './open-door.js';

/** Only persons with the role `operator` operate; everything else is allowed. */
export const operatorsOperate: Rule = ({ principal, resource }) => {
  if (resource.type !== 'Installation') return 'allow';
  return JSON.stringify(principal.attributes).includes('operator') ? 'allow' : 'deny';
};

export type Who = 'nobody' | 'orchestrator' | 'agent' | 'other' | 'tool' | 'operator' | 'second';

export const NAMES: Record<Exclude<Who, 'nobody'>, string> = {
  orchestrator: svid(ORCHESTRATOR),
  agent: svid(REFUNDS),
  other: svid(EMAILS),
  tool: svid(ORDERS_TOOL),
  operator: person('alice', { roles: ['operator'] }),
  second: person('bob', { roles: ['operator'] }),
};

/** A door behind which something has happened: a task, a token for a tool, a revocation, a lock. */
export interface World extends OpenDoor {
  task: string;
  lease: string;
  /** A credential that lives, and one that is being revoked. */
  credential: string;
  dying: string;
  toolToken: string;
  revocation: string;
  lock: string;
  /** A refusal's decision. */
  decision: string;
  send(who: Who, method: string, path: string, call?: Call): Promise<Answer>;
}

export const TASK = {
  type: 'refund',
  params: { order_id: '42' },
  purpose: 'Refund order 42',
  agents: [REFUNDS],
  ttl_seconds: 300,
};

export async function openWorld(): Promise<World> {
  const clock = new VirtualClock();
  const backends = fakeBackends(new FakeBackend(clock));
  const door = await openDoor({ rule: operatorsOperate, clock, parts: { backends } });
  // The fake ring does not follow the store; it starts where the store does.
  door.parts.keys.ringVersion = 0;
  await door.parts.secretChecks.tick();
  const people = { operator: await door.operator(NAMES.operator), second: await door.operator(NAMES.second) };
  const send: World['send'] = (who, method, path, call = {}) => {
    if (who === 'operator' || who === 'second') return people[who](method, path, call);
    return door.call(method, path, who === 'nobody' ? call : { as: NAMES[who], ...call });
  };
  const opened = await must(send('orchestrator', 'POST', '/v1/tasks', { json: { ...TASK, ref: 'run-1' } }));
  const task: string = opened.body.id;
  const minted = await must(send('nobody', 'POST', '/oauth2/token', { form: tokenForm(NAMES.agent, task) }));
  const secretFor = async () =>
    (await must(send('agent', 'POST', '/v1/secrets/orders-db', { json: { task } }))).body.lease_id as string;
  const [credential, dying] = [await secretFor(), await secretFor()];
  await must(send('agent', 'POST', `/v1/leases/${dying}/revoke`));
  const refused = await send('other', 'GET', `/v1/tasks/${task}`);
  const selector = { owner: 'nobody@example.com' };
  const locked = await must(send('operator', 'POST', '/v1/locks', { json: { selector, reason: 'drill' } }));
  return {
    ...door,
    send,
    task,
    lease: minted.body.lease_id,
    credential,
    dying,
    toolToken: minted.body.access_token,
    revocation: locked.body.revocation.id,
    lock: locked.body.lock.id,
    decision: refused.body.decision_id,
  };
}

export function tokenForm(identity: string, task: string): Record<string, string> {
  return {
    grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
    subject_token: bearer(identity),
    subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    resource: ORDERS,
    authorization_details: JSON.stringify([{ type: 'urn:mayfly:task', identifier: task }]),
  };
}

async function must(answering: Promise<Answer>): Promise<Answer> {
  const answer = await answering;
  if (answer.status >= 400) throw new Error(`${answer.status} ${answer.text}`);
  return answer;
}
