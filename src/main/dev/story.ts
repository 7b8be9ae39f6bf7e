import { setTimeout as delay } from 'node:timers/promises';
import { DpopProver } from '../../client/dpop-prover.js';
import { Mayfly } from '../../client/mayfly.js';
import { TokenRefusal } from '../../client/token-refusal.js';
import { createVerifier } from '../../client/verifier.js';
import { useDatabase } from './database-story.js';
import { DEV_PEOPLE, type DevTrustDomain } from './trust-domain.js';

const TOOL_RESOURCE = 'https://orders.example';
const ATTEMPTS_MAX = 5;
const RETRY_MS = 500;

export interface Story {
  url: string;
  trustDomain: DevTrustDomain;
  /** Whether the sample secret `orders-db` has a PostgreSQL behind it. */
  withDatabase?: boolean;
  say: (line: string) => void;
}

/**
 * What Mayfly is for, played once against the running broker from outside: an agent is identified, gets a token for one task, uses it at a
 * tool, the task completes, and the same token is refused. Every step is a real request, and its time is what it took.
 */
export async function playStory({ url, trustDomain, withDatabase = false, say }: Story): Promise<void> {
  const svid = (path: string) => trustDomain.jwtSvid({ path, audience: url, ttlSeconds: 300 });
  const steps = stopwatch(say);

  const verifier = createVerifier({
    issuer: url,
    audience: TOOL_RESOURCE,
    identity: { bearer: async () => svid('/tool/orders') },
  });
  try {
    await verifier.ready(10_000);
    steps('the tool /tool/orders follows the revocation feed');

    const task = await post(url, '/v1/tasks', svid('/orchestrator/workflow'), {
      type: 'refund',
      params: { order_id: 42 },
      purpose: 'refund order 42',
      agents: ['spiffe://dev.mayfly/agent/refunds'],
      scope: { tools: ['orders.read'], resources: [TOOL_RESOURCE], secrets: withDatabase ? ['orders-db'] : [] },
      ttl_seconds: 300,
    });
    steps(`the orchestrator opened task ${task['id']}`);

    const identity = svid('/agent/refunds');
    steps('the agent has a SPIFFE identity: spiffe://dev.mayfly/agent/refunds');

    const prover = new DpopProver();
    const tokenRequest = () => ({
      method: 'POST',
      headers: { DPoP: prover.prove({ method: 'POST', url: `${url}/oauth2/token`, nowMs: Date.now() }) },
      body: new URLSearchParams({
        grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subject_token: identity,
        subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
        resource: TOOL_RESOURCE,
        scope: `task:${task['id']} orders.read`,
      }),
    });
    const reply = await comingAgain(() => fetch(`${url}/oauth2/token`, tokenRequest()));
    const minted = (await reply.json()) as Record<string, unknown>;
    if (!reply.ok) {
      const why = [minted['error_description'] ?? reply.status, minted['hint']].filter(Boolean).join(' ');
      throw new Error(`the agent got no token. ${why}`);
    }
    const token = String(minted['access_token']);
    steps(
      `it got a token for this task, bound to its key, for ${minted['expires_in']} s (lease ${minted['lease_id']})`,
    );

    const call = () => ({
      scheme: 'DPoP' as const,
      method: 'GET',
      url: `${TOOL_RESOURCE}/orders/42`,
      dpop: prover.prove({ method: 'GET', url: `${TOOL_RESOURCE}/orders/42`, accessToken: token, nowMs: Date.now() }),
      tool: 'orders.read',
    });
    const used = await verifier.verify(token, call());
    steps(`the tool let it in: ${used.agent} may ${used.tools.join(', ')}`);

    const auditor = new Mayfly({ url, identity: { person: async () => personToken(trustDomain, url) } });
    const database = withDatabase
      ? await useDatabase({
          url,
          identity: () => svid('/agent/refunds'),
          task: String(task['id']),
          auditor,
          again: comingAgain,
          steps,
          say,
        })
      : undefined;

    const dead = new Promise((resolve) => verifier.watch(used, resolve));
    await post(url, `/v1/tasks/${task['id']}/complete`, svid('/orchestrator/workflow'), {});
    steps('the orchestrator said: completed');

    await dead;
    steps(`the tool refuses the same token: ${await refusalOf(() => verifier.verify(token, call()))}`);

    const again = await fetch(`${url}/oauth2/token`, {
      method: 'POST',
      body: new URLSearchParams({
        grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subject_token: identity,
        subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
        resource: TOOL_RESOURCE,
        scope: `task:${task['id']}`,
      }),
    });
    const refused = (await again.json()) as Record<string, unknown>;
    if (again.ok) throw new Error('a token was minted for a task that is over');
    steps(`and gets no other one: ${refused['error_description']} (why: npx mayfly why ${refused['decision_id']})`);
    await database?.seeItDie();
  } finally {
    await verifier.close();
  }
}

function personToken(trustDomain: DevTrustDomain, audience: string): string {
  const { subject, groups } = DEV_PEOPLE[0] as (typeof DEV_PEOPLE)[number];
  return trustDomain.personToken({ subject, groups, audience, ttlSeconds: 300 });
}

async function post(url: string, path: string, bearer: string, body: unknown): Promise<Record<string, unknown>> {
  const reply = await comingAgain(() =>
    fetch(`${url}${path}`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${bearer}`, 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
    }),
  );
  const answer = (await reply.json()) as Record<string, unknown>;
  if (!reply.ok) throw new Error(`${path}: ${reply.status} ${JSON.stringify(answer)}`);
  return answer;
}

/** 503 is no refusal: it says come again. */
async function comingAgain(ask: () => Promise<Response>): Promise<Response> {
  for (let attempt = 1; ; attempt++) {
    const reply = await ask();
    if (reply.status !== 503 || attempt === ATTEMPTS_MAX) return reply;
    await reply.body?.cancel();
    await delay(RETRY_MS);
  }
}

/** Why it is refused; that it is not would end the story. */
async function refusalOf(use: () => Promise<unknown>): Promise<string> {
  try {
    await use();
  } catch (error) {
    if (error instanceof TokenRefusal) return error.reason;
    throw error;
  }
  throw new Error('the token was taken although its task is over');
}

/** Says each step with the milliseconds since the one before. */
function stopwatch(say: (line: string) => void): (line: string) => void {
  let last = performance.now();
  return (line) => {
    const now = performance.now();
    say(`${(now - last).toFixed(1).padStart(8)} ms  ${line}`);
    last = now;
  };
}
