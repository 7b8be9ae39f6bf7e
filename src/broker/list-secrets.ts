import type { SecretDeclaration } from '../core/bundle.js';
import type { Revocability } from '../core/credential.js';
import { isTerminal } from '../core/task.js';
import type { Page } from '../state/stores.js';
import { currentBundle } from './authenticate.js';
import type { Caller } from './caller.js';
import { paged } from './paged.js';
import type { Parts } from './parts.js';
import { mayOperate } from './permitted.js';
import { recordingRefusals } from './refusal.js';

export interface SecretView extends Omit<SecretDeclaration, 'settings'> {
  kind?: string;
  revocability?: Revocability;
  open: boolean;
  problem?: string;
}

const TASKS_MAX = 500;

/** Declared secrets: all for operators, for anybody else those of the live tasks they are in, without the reasons that are ours. */
export async function listSecrets(
  parts: Parts,
  caller: Caller,
  asked: { cursor?: string; limit: number },
): Promise<Page<SecretView>> {
  return recordingRefusals(parts, caller, { action: 'list_secrets' }, async () => {
    const isOperator = mayOperate(parts, caller, 'view');
    const bundle = currentBundle(parts);
    const names = isOperator ? undefined : await namesOf(parts, caller);
    return paged(parts, caller, 'secrets', asked, async ({ cursor: after, limit }) => {
      const all = [...bundle.secrets.values()]
        .filter(({ name }) => (names?.has(name) ?? true) && (after === undefined || name > after))
        .sort((a, b) => (a.name < b.name ? -1 : 1));
      const items = all.slice(0, limit).map((secret) => viewOf(parts, secret, isOperator));
      const last = items.at(-1);
      return { items, ...(last && all.length > limit && { cursor: last.name }) };
    });
  });
}

async function namesOf(parts: Parts, caller: Caller): Promise<Set<string>> {
  const own = caller.principal.kind === 'agent' ? { agent: caller.name } : { opener: caller.name };
  const { items } = await parts.views.tasks({ ...own, live: true, limit: TASKS_MAX });
  return new Set(items.filter(({ state }) => !isTerminal(state)).flatMap(({ scope }) => scope.secrets));
}

function viewOf(parts: Parts, secret: SecretDeclaration, isOperator: boolean): SecretView {
  const { settings: _, ...declared } = secret;
  const backend = parts.backends.get(secret.backend);
  const parsed = backend?.secretSettings.safeParse(secret.settings);
  const problem = parts.secretChecks.problemOf(secret.name);
  return {
    ...declared,
    ...(backend && { kind: backend.kind }),
    ...(backend && parsed?.success && { revocability: backend.revocability(parsed.data) }),
    open: problem === undefined,
    ...(isOperator && problem !== undefined && { problem }),
  };
}
