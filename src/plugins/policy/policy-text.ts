import type { PolicyJson } from '@cedar-policy/cedar-wasm/nodejs';
import type { Limits } from '../../core/decision.js';
import { withEngine } from './engine.js';
import { readLimits } from './limits.js';
import { type ReadPath, readPathsOf } from './reads.js';

/** One policy of the bundle, taken apart. */
export interface Policy {
  /** Its `@id`: what decisions, records and people call it. */
  id: string;
  file: string;
  text: string;
  effect: 'permit' | 'forbid';
  json: PolicyJson;
  limits: Limits;
  reads: ReadPath[];
}

const POLICIES_MAX = 5_000;
/** Levels of a policy's JSON; the engine's own stack ends at several times this. */
const DEPTH_MAX = 256;
const ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** Every policy of the bundle's `.cedar` files; what is wrong with one goes to `problems`, and the others are still read. */
export function readPolicies(files: Map<string, string>, problems: string[]): Policy[] {
  const policies = new Map<string, Policy>();
  for (const [file, content] of files) {
    for (const { text, line } of partsOf(file, content, problems)) {
      const where = `${file} line ${line}`;
      const policy = readPolicy(file, where, text, problems);
      if (policy === undefined) continue;
      const first = policies.get(policy.id);
      if (first)
        problems.push(
          `${where}: @id("${policy.id}") is used twice, first in ${first.file}; records name policies by it, so give this one its own`,
        );
      else policies.set(policy.id, policy);
    }
  }
  if (policies.size > POLICIES_MAX)
    problems.push(`policies/: holds ${policies.size} policies, at most ${POLICIES_MAX} are read`);
  return [...policies.values()];
}

function partsOf(file: string, content: string, problems: string[]): { text: string; line: number }[] {
  const answer = attempt(file, problems, () => withEngine((engine) => engine.policySetTextToParts(content)));
  if (answer === undefined) return [];
  if (answer.type === 'failure') {
    for (const error of answer.errors) {
      const start = error.sourceLocations?.[0]?.start;
      const where = start === undefined ? file : `${file} line ${lineAt(content, start)}`;
      const expected = error.sourceLocations?.[0]?.label;
      problems.push(`${where}: ${error.message}${expected ? `, ${expected}` : ''}`);
    }
    return [];
  }
  if (answer.policy_templates.length > 0) {
    problems.push(
      `${file}: holds a template (?principal or ?resource), and nothing here would link it; write the policy out`,
    );
  }
  // The parts come sorted by generated names (policy0, policy1, policy10, policy2 …); what counts is where each one stands.
  const after = new Map<string, number>();
  return answer.policies
    .map((text) => {
      const at = content.indexOf(text, after.get(text) ?? 0);
      after.set(text, at + text.length);
      return { text, at };
    })
    .sort((a, b) => a.at - b.at)
    .map(({ text, at }) => ({ text, line: lineAt(content, Buffer.byteLength(content.slice(0, at))) }));
}

function readPolicy(file: string, where: string, text: string, problems: string[]): Policy | undefined {
  const answer = attempt(where, problems, () => withEngine((engine) => engine.policyToJson(text)));
  if (answer === undefined) return undefined;
  if (answer.type === 'failure') {
    problems.push(...answer.errors.map((error) => `${where}: ${error.message}`));
    return undefined;
  }
  const json = answer.json;
  if (isDeeperThan(json, DEPTH_MAX)) {
    problems.push(`${where}: is nested too deeply; divide it into several policies`);
    return undefined;
  }
  const annotations = (json.annotations ?? {}) as Record<string, string>;
  const id = annotations['id'];
  if (id === undefined || !ID.test(id)) {
    problems.push(
      `${where}: needs @id("…") of 1 to 64 letters, digits, ".", "_" or "-"; records and reviewers name the policy by it`,
    );
    return undefined;
  }
  const { limits, problems: wrong } = readLimits(json.effect, annotations);
  problems.push(...wrong.map((problem) => `${where}: policy ${id}: ${problem}`));
  return { id, file, text, effect: json.effect, json, limits, reads: readPathsOf(json) };
}

/** The engine counts bytes of UTF-8. */
function lineAt(content: string, byte: number): number {
  return Buffer.from(content).subarray(0, byte).toString().split('\n').length;
}

/** The engine throws on what it cannot bear, instead of answering. */
function attempt<Answer>(where: string, problems: string[], use: () => Answer): Answer | undefined {
  try {
    return use();
  } catch {
    problems.push(
      `${where}: is too much for the policy engine, most likely nested too deeply; divide it into several policies`,
    );
    return undefined;
  }
}

function isDeeperThan(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((each) => isDeeperThan(each, levels - 1));
}
