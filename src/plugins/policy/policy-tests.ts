import { z } from 'zod';
import { type Bundle, findWorkload, resourceOfTool } from '../../core/bundle.js';
import { effectiveContext } from '../../core/context.js';
import type { Decision, EntityType, PolicyAction, PolicyEntity, PolicyQuestion } from '../../core/decision.js';
import { suggestion } from '../../core/did-you-mean.js';
import { stricterSensitivity } from '../../core/sensitivity.js';
import { parseSpiffeId, pathOf, type SpiffeId, trustDomainOf } from '../../core/spiffe-id.js';
import { parseDurationMs } from '../../core/time.js';
import { invalid, problemsOf, readYaml } from './bundle-problems.js';
import type { PolicyEngine, PolicyTestResult, PreparedPolicy } from './contract.js';
import { APPLIES } from './schema.js';

const CASES_MAX = 2_000;

const values = z.record(z.string(), z.unknown());
const names = z.array(z.string()).max(100);

const task = z.strictObject({
  type: z.string().default('untyped'),
  params: values.default({}),
  purpose: z.string().default('a policy test'),
  tools: names.optional(),
  resources: names.optional(),
  secrets: names.default([]),
  agents: names.default([]),
  context: values.default({}),
  opener: z.string().default('/orchestrator/workflow'),
  self_opened: z.boolean().default(false),
  ttl: z.string().default('5m'),
});

const person = z.strictObject({ roles: names });

const limits = z.strictObject({
  max_ttl: z.string().optional(),
  max_calls: z.int().optional(),
  binding: z.string().optional(),
  revocability: z.string().optional(),
  approval: z.string().optional(),
});

const testCase = z.strictObject({
  name: z.string().min(1, 'must not be empty').max(200),
  principal: z.union([z.string(), person]),
  /** Attributes of the principal that differ from what it is declared with. */
  attributes: values.default({}),
  action: z.enum(Object.keys(APPLIES) as [PolicyAction, ...PolicyAction[]]),
  resource: z.string(),
  task: z.union([z.string(), task]).optional(),
  context: values.default({}),
  expect: z.enum(['allow', 'deny', 'ask']),
  policies: names.optional(),
  limits: limits.optional(),
});

const testFile = z.strictObject({
  trust_domain: z.string(),
  now: z.iso.datetime().default('2030-01-15T12:00:00Z'),
  tasks: z.record(z.string(), task).default({}),
  tests: z.array(testCase).min(1, 'must hold at least one test').max(CASES_MAX, `must not hold more than ${CASES_MAX}`),
});

type TestFile = z.output<typeof testFile>;
type TestCase = z.output<typeof testCase>;
type TestTask = z.output<typeof task>;

/**
 * Runs the bundle's own `policies/*.test.yaml` (docs/guides/write-policies.md) against its policies, in the order of files and
 * cases. Throws `bundle_invalid` when the policies do not validate or a test file cannot be read; a case that asks about
 * something the bundle does not declare fails, and says what.
 */
export async function runPolicyTests(bundle: Bundle, engine: PolicyEngine): Promise<PolicyTestResult[]> {
  const files = readTestFiles(bundle);
  const policy = await engine.prepare(bundle);
  return files.flatMap(([file, content]) => content.tests.map((each) => runCase(file, content, each, policy)));
}

function readTestFiles(bundle: Bundle): [string, TestFile][] {
  const problems: string[] = [];
  const files: [string, TestFile][] = [];
  for (const path of Object.keys(bundle.files).sort()) {
    if (!path.endsWith('.test.yaml')) continue;
    const content = readYaml(path, bundle.files[path] as string, problems);
    if (content === undefined) continue;
    const result = testFile.safeParse(content);
    if (result.success) files.push([path, result.data]);
    else for (const issue of result.error.issues) problems.push(...problemsOf(`${path}:`, issue, testFile, content));
  }
  if (problems.length > 0) throw invalid(problems);
  return files;
}

function runCase(file: string, content: TestFile, each: TestCase, policy: PreparedPolicy): PolicyTestResult {
  const question = questionOf(each, content, policy.bundle);
  if (typeof question === 'string') return { file, name: each.name, passed: false, message: question };
  const decision = policy.decide(question);
  const faults = faultsOf(each, decision);
  if (faults.length === 0) return { file, name: each.name, passed: true };
  const why = decision.effect === 'deny' ? policy.nearestMiss(question) : undefined;
  return { file, name: each.name, passed: false, message: [...faults, ...(why ? [why] : [])].join('; ') };
}

function faultsOf(each: TestCase, decision: Decision): string[] {
  const faults: string[] = [];
  const by = decision.policyIds.length > 0 ? ` (by ${decision.policyIds.join(', ')})` : '';
  if (decision.effect !== each.expect) faults.push(`expected ${each.expect}, got ${decision.effect}${by}`);
  // Expecting a deny is about policy: a question that cannot even be asked would pass it for the wrong reason.
  if (decision.errors.length > 0) faults.push(`the question could not be decided: ${decision.errors.join('; ')}`);
  if (each.policies && [...each.policies].sort().join(' ') !== decision.policyIds.join(' ')) {
    faults.push(
      `expected it by ${each.policies.join(', ') || 'no policy'}, got ${decision.policyIds.join(', ') || 'no policy'}`,
    );
  }
  if (each.limits) {
    const { max_ttl, max_calls, binding, revocability, approval } = each.limits;
    const expected = {
      ttlMsMax: max_ttl === undefined ? undefined : parseDurationMs(max_ttl),
      callsMax: max_calls,
      binding,
      revocability,
      approval,
    };
    for (const [limit, value] of Object.entries(expected)) {
      const got = decision.limits[limit as keyof typeof expected];
      if (value !== undefined && got !== value) faults.push(`expected ${limit} ${value}, got ${got ?? 'none'}`);
    }
  }
  return faults;
}

/** A whole question from the few words of a case, or what is wrong with them. */
function questionOf(each: TestCase, content: TestFile, bundle: Bundle): PolicyQuestion | string {
  const nowMs = Date.parse(content.now);
  const named = typeof each.task === 'string' ? content.tasks[each.task] : each.task;
  if (typeof each.task === 'string' && named === undefined) {
    return `there is no task "${each.task}" in this file${suggestion(each.task, Object.keys(content.tasks))}`;
  }
  const declared = principalOf(each.principal, content, bundle, nowMs);
  if (typeof declared === 'string') return declared;
  const principal = { ...declared, attributes: { ...declared.attributes, ...each.attributes } };
  const resource = resourceEntityOf(each, named, content, bundle);
  if (typeof resource === 'string') return resource;
  const work = named && workOf(named, content, bundle);
  const context = { ...contextOf(each.action, principal, resource, named, work, bundle), now: nowMs, ...each.context };
  return { principal, action: each.action, resource, context };
}

/** `/agent/refunds` in the file's trust domain, or a whole SPIFFE ID. */
function idOf(text: string, content: TestFile): SpiffeId | undefined {
  return parseSpiffeId(text.startsWith('/') ? `spiffe://${content.trust_domain}${text}` : text);
}

function fullName(text: string, content: TestFile): string {
  return idOf(text, content) ?? text;
}

function principalOf(
  who: TestCase['principal'],
  content: TestFile,
  bundle: Bundle,
  nowMs: number,
): PolicyEntity | string {
  if (typeof who !== 'string') {
    const [issuer, subject] = ['https://people.example', 'somebody'];
    return { type: 'Person', id: `${issuer}#${subject}`, attributes: { issuer, subject, roles: who.roles } };
  }
  const id = idOf(who, content);
  const workload = id && findWorkload(bundle, id);
  if (!id || !workload) {
    return `there is no workload "${who}" in this bundle${suggestion(
      fullName(who, content),
      bundle.workloads.map((each) => each.spiffeId),
    )}`;
  }
  const { role, owner, team, riskTier, environment, model, tools, labels, reviewBy, retired } = workload;
  return {
    type: role === 'agent' ? 'Agent' : 'Orchestrator',
    id,
    attributes: {
      spiffeId: id,
      path: pathOf(id),
      trustDomain: trustDomainOf(id),
      owner,
      team,
      riskTier,
      environment,
      ...(model === undefined ? {} : { model }),
      tools,
      labels,
      reviewOverdue: reviewBy !== undefined && Date.parse(reviewBy) <= nowMs,
      retired,
    },
  };
}

function resourceEntityOf(
  each: TestCase,
  named: TestTask | undefined,
  content: TestFile,
  bundle: Bundle,
): PolicyEntity | string {
  const { resource: id } = each;
  const known: Partial<Record<EntityType, Iterable<string>>> = {
    Tool: [...bundle.resources.values()].flatMap((resource) => resource.tools),
    Api: bundle.resources.keys(),
    Secret: bundle.secrets.keys(),
    TaskType: [...bundle.taskTypes.keys(), 'untyped'],
    Installation: ['mayfly'],
  };
  const types = APPLIES[each.action].resources;
  const type = types.find((candidate) => [...(known[candidate] ?? [])].includes(id));
  if (type === 'Secret') return { type, id, attributes: { revocability: 'instant' } };
  if (type !== undefined) return { type, id, attributes: {} };
  if (id === 'task' && types.includes('Task') && named) {
    const attributes = {
      type: named.type,
      risk: bundle.taskTypes.get(named.type)?.risk ?? 'medium',
      opener: fullName(named.opener, content),
      agents: named.agents.map((agent) => fullName(agent, content)),
    };
    return { type: 'Task', id: 'task', attributes };
  }
  const candidates = types.flatMap((candidate) => [...(known[candidate] ?? [])]);
  return `"${id}" is nothing that ${each.action} can be asked about in this bundle${suggestion(id, candidates)}`;
}

/** The test's task with what a case may leave out: everything its type declares. */
function workOf(named: TestTask, content: TestFile, bundle: Bundle) {
  const type = bundle.taskTypes.get(named.type);
  return {
    type: named.type,
    params: named.params,
    purpose: named.purpose,
    tools: named.tools ?? type?.tools ?? [],
    resources: named.resources ?? type?.resources ?? [],
    secrets: named.secrets,
    agents: named.agents.map((agent) => fullName(agent, content)),
    opener: fullName(named.opener, content),
    risk: type?.risk ?? 'medium',
  };
}

function contextOf(
  action: PolicyAction,
  principal: PolicyEntity,
  resource: PolicyEntity,
  named: TestTask | undefined,
  work: ReturnType<typeof workOf> | undefined,
  bundle: Bundle,
): Record<string, unknown> {
  if (!named || !work) return APPLIES[action].principals.includes('Person') ? { secondPerson: false, bound: true } : {};
  const { type, params, purpose, tools, resources, secrets, agents, opener, risk } = work;
  const said = effectiveContext([{ type, context: named.context }], bundle.taskTypes);
  if (action === 'open') {
    const ttlSeconds = Math.floor((parseDurationMs(named.ttl) ?? 0) / 1_000);
    const opened = { type, params, purpose, tools, resources, secrets, agents, ttlSeconds, context: said };
    return { task: opened, selfOpened: named.self_opened };
  }
  if (APPLIES[action].principals.includes('Person')) return { secondPerson: false, bound: true };
  const home = resourceOfTool(bundle, resource.id) ?? bundle.resources.get(resource.id);
  // As the broker does: what an agent says of the task it opened for itself is untrusted.
  const environment = named.self_opened ? undefined : said['environment'];
  const situation = {
    task: {
      id: 'tsk_a_00000000000000000000000000',
      ...{ type, params, purpose, risk, tools, agents, opener },
      generation: 0,
      selfOpened: named.self_opened,
      depth: 1,
      context: said,
    },
    environment: typeof environment === 'string' ? environment : principal.attributes['environment'],
    dataSensitivity: stricterSensitivity(
      home?.sensitivity ?? bundle.secrets.get(resource.id)?.sensitivity ?? 'public',
      said['data_sensitivity'],
    ),
    proof: 'jwt-svid',
    binding: 'none',
  };
  if (action === 'read') return { ...situation, ttlSecondsRequested: 300 };
  const target = { ...situation, audience: home?.resource ?? resource.id, enforcement: home?.enforcement ?? 'feed' };
  if (action === 'call') return { ...target, arguments: {}, calls: 0 };
  return { ...target, ttlSecondsRequested: 300 };
}
