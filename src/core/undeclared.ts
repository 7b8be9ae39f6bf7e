import { type Bundle, declaredWorkloads, findWorkload } from './bundle.js';
import type { TaskContext } from './context.js';
import { suggestion } from './did-you-mean.js';
import type { Selector } from './selector.js';
import { hasPrefix, parseSpiffeId, prefixesOf, type SpiffeId, trustDomainOf } from './spiffe-id.js';

/** The names a bundle declares, by the member of a selector that may name one. */
const DECLARED = {
  trust_domain: (bundle) => bundle.workloads.map(({ spiffeId }) => trustDomainOf(spiffeId as SpiffeId)),
  owner: (bundle) => bundle.workloads.map(({ owner }) => owner),
  team: (bundle) => bundle.workloads.map(({ team }) => team),
  environment: (bundle) => bundle.workloads.map(({ environment }) => environment),
  tool: (bundle) => [...bundle.resources.values()].flatMap(({ tools }) => tools),
  resource: (bundle) => [...bundle.resources.keys()],
  secret: (bundle) => [...bundle.secrets.keys()],
  backend: (bundle) => [...bundle.secrets.values()].map(({ backend }) => backend),
} satisfies { [Member in keyof Selector]: (bundle: Bundle) => string[] };

/**
 * What a selector names although the bundle does not declare it, one sentence each, with the name that may have been meant. Such a selector is
 * still good: leases of what was declared once are found by it, and an emergency is no time to be refused.
 */
export function undeclaredIn(bundle: Bundle, selector: Selector): string[] {
  const found: string[] = [];
  for (const member of ['agent', 'opener'] as const) {
    const name = selector[member];
    // People (`issuer#subject`) are declared nowhere.
    if (name === undefined || name.includes('#')) continue;
    const id = parseSpiffeId(name);
    if (id && findWorkload(bundle, id)) continue;
    found.push(sentence(member, name, suggestion(name, declaredWorkloads(bundle))));
  }
  const { prefix } = selector;
  if (prefix !== undefined && !bundle.workloads.some(({ spiffeId }) => mayBeBelow(spiffeId, prefix))) {
    const prefixes = bundle.workloads.flatMap(({ spiffeId }) => prefixesOf(spiffeId.replace(/\/\*$/, '') as SpiffeId));
    found.push(`No agent below ${prefix} is declared${suggestion(prefix, prefixes) || '.'}`);
  }
  for (const [member, declaredIn] of Object.entries(DECLARED)) {
    const name = selector[member as keyof typeof DECLARED];
    const declared = declaredIn(bundle);
    if (name !== undefined && !declared.includes(name)) found.push(sentence(member, name, suggestion(name, declared)));
  }
  return found;
}

/**
 * The context keys that no task type declares, one sentence each, with the key that may have been meant. Keys are free, but policy sees only
 * those that some type declares: who misspelt one would think that it tightened something.
 */
export function undeclaredKeysIn(bundle: Bundle, context: TaskContext): string[] {
  const declared = new Set([...bundle.taskTypes.values()].flatMap((type) => Object.keys(type.context)));
  return Object.keys(context)
    .filter((key) => !declared.has(key))
    .map((key) => `No task type declares the context key ${key}: no policy sees it${suggestion(key, declared) || '.'}`);
}

/** `…/agent/*` stands for every ID with one more segment. */
function mayBeBelow(declared: string, prefix: string): boolean {
  if (!declared.endsWith('/*')) return hasPrefix(declared, prefix);
  const folder = declared.slice(0, -2);
  return hasPrefix(folder, prefix) || prefix.slice(0, prefix.lastIndexOf('/')) === folder;
}

function sentence(member: string, name: string, meant: string): string {
  return `No ${member} ${name} is declared${meant || '.'}`;
}
