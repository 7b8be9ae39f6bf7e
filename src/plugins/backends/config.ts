import { z } from 'zod';
import { suggestion } from '../../core/did-you-mean.js';
import { type BackendKind, backendKinds } from './registry.js';

const KINDS = Object.keys(backendKinds) as BackendKind[];

type KindConfig = (typeof backendKinds)[BackendKind]['config'];

const backendConfig = z.discriminatedUnion(
  'kind',
  Object.values(backendKinds).map((plugin) => plugin.config) as unknown as [KindConfig, ...KindConfig[]],
  { error: (issue) => (issue.code === 'invalid_union' ? unknownKind(issue.input) : undefined) },
);

/** Where credentials come from: a name that secrets (`config/secrets/*.yaml`) use, and what is behind it. */
export const backendsConfig = z.record(
  z.string().regex(/^[A-Za-z0-9_.-]{1,64}$/, 'has to be a name of 1 to 64 letters, digits, "_", "." or "-"'),
  backendConfig,
);

export type BackendsConfig = z.output<typeof backendsConfig>;
export type BackendConfig = BackendsConfig[string];

function unknownKind(input: unknown): string {
  const kind = (input as { kind?: unknown } | null)?.kind;
  if (typeof kind !== 'string') return `needs a kind: one of ${KINDS.join(', ')}`;
  const near = suggestion(kind, KINDS);
  return `"${kind.slice(0, 64)}" is no kind of backend${near === '' ? ` (there are ${KINDS.join(', ')})` : near.replace(/\?$/, '')}`;
}
