import { parseSpiffeId, type SpiffeId } from '../../core/spiffe-id.js';

/** A rule that turns the claims of a workload's OIDC token into a SPIFFE ID. Shapes and promises: docs/plugins/identity/oidc.md. */
export interface WorkloadRule {
  /** Claim → the whole value it has to have, or a list of them. */
  match: Record<string, ClaimValue | ClaimValue[]>;
  /** The path of the SPIFFE ID; `{claim}` stands for exactly one segment. */
  spiffe_path: string;
  /** A claim that cannot be handed to somebody else (an id, not a name). It is in `match` or in the path. */
  immutable: string;
  /** Claims to keep as attributes. */
  attributes: string[];
}

export type ClaimValue = string | number | boolean;

/** What a rule made of a token, or why none did. */
export type RuleOutcome = { spiffeId: SpiffeId; attributes: Record<string, string> } | { problem: string };

const PLACEHOLDER = /^\{([^{}]+)\}$/;
const SEGMENT = /^[A-Za-z0-9._-]+$/;
const ATTRIBUTE_CHARS_MAX = 256;

/**
 * A claim by its name, or by a JSON pointer (RFC 6901) when it starts with `/`: `/kubernetes.io/serviceaccount/uid`. Own
 * members only.
 */
export function claimAt(payload: Record<string, unknown>, name: string): unknown {
  if (!name.startsWith('/')) return Object.hasOwn(payload, name) ? payload[name] : undefined;
  let value: unknown = payload;
  for (const part of name.slice(1).split('/')) {
    const key = part.replaceAll('~1', '/').replaceAll('~0', '~');
    if (typeof value !== 'object' || value === null || Array.isArray(value) || !Object.hasOwn(value, key))
      return undefined;
    value = (value as Record<string, unknown>)[key];
  }
  return value;
}

/** The segments of a template path, `/`-separated outside braces, so that a placeholder may hold a JSON pointer. */
export function templateSegments(path: string): string[] {
  return path.match(/\{[^{}]*\}|[^/{}]+|[{}]/g) ?? [];
}

/** The claim a segment stands for; undefined when it is literal text. */
export function placeholderOf(segment: string): string | undefined {
  return PLACEHOLDER.exec(segment)?.[1];
}

/** True when a template path is `/`-separated literal segments and whole-segment placeholders, and nothing else. */
export function isTemplatePath(path: string): boolean {
  const segments = templateSegments(path);
  if (segments.length === 0 || `/${segments.join('/')}` !== path) return false;
  return segments.every((segment) => placeholderOf(segment) !== undefined || isSegment(segment));
}

/** The first rule whose claims all match makes the identity; a value that is no path segment refuses, it is never cleaned up. */
export function applyRules(
  rules: readonly WorkloadRule[],
  payload: Record<string, unknown>,
  trustDomain: string,
): RuleOutcome {
  const rule = rules.find((one) => matches(one, payload));
  if (!rule) return { problem: 'no rule matches the claims' };
  if (scalarText(claimAt(payload, rule.immutable)) === undefined)
    return { problem: `the claim ${rule.immutable} is missing` };
  let path = '';
  for (const segment of templateSegments(rule.spiffe_path)) {
    const claim = placeholderOf(segment);
    const text = claim === undefined ? segment : scalarText(claimAt(payload, claim));
    if (text === undefined || !isSegment(text)) return { problem: `the claim ${claim} does not fill one path segment` };
    path += `/${text}`;
  }
  const spiffeId = parseSpiffeId(`spiffe://${trustDomain}${path}`);
  if (!spiffeId) return { problem: 'the claims make no SPIFFE ID' };
  return { spiffeId, attributes: keptAttributes(rule, payload) };
}

function matches(rule: WorkloadRule, payload: Record<string, unknown>): boolean {
  return Object.entries(rule.match).every(([name, wanted]) => {
    const value = claimAt(payload, name);
    return Array.isArray(wanted) ? wanted.some((one) => one === value) : wanted === value;
  });
}

function keptAttributes(rule: WorkloadRule, payload: Record<string, unknown>): Record<string, string> {
  const attributes: Record<string, string> = {};
  for (const name of rule.attributes) {
    const text = scalarText(claimAt(payload, name));
    if (text !== undefined && text.length <= ATTRIBUTE_CHARS_MAX) attributes[name] = text;
  }
  return attributes;
}

function isSegment(text: string): boolean {
  return SEGMENT.test(text) && text !== '.' && text !== '..';
}

function scalarText(value: unknown): string | undefined {
  if (typeof value === 'string' && value !== '') return value;
  if (typeof value === 'number' && Number.isSafeInteger(value)) return String(value);
  return undefined;
}
