import type { Limits } from '../../core/decision.js';
import { suggestion } from '../../core/did-you-mean.js';
import { REVOCABILITY } from '../../core/limits.js';
import { parseDurationMs } from '../../core/time.js';

const TTL_MS_MAX = 30 * 86_400_000;
const CALLS_MAX = 1_000_000;
const BINDINGS = ['dpop', 'mtls', 'any'] as const;

type Reader = { field: keyof Limits; wants: string; read(text: string): Limits | undefined };

/** The annotations that limit what a permitting policy gives. */
const LIMIT_ANNOTATIONS: Record<string, Reader> = {
  max_ttl: {
    field: 'ttlMsMax',
    wants: 'a duration between 1s and 30d, such as "5m"',
    read(text) {
      const ms = parseDurationMs(text);
      return ms !== undefined && ms >= 1_000 && ms <= TTL_MS_MAX ? { ttlMsMax: ms } : undefined;
    },
  },
  max_calls: {
    field: 'callsMax',
    wants: `a whole number between 1 and ${CALLS_MAX}`,
    read: (text) => (/^[1-9]\d{0,6}$/.test(text) && Number(text) <= CALLS_MAX ? { callsMax: Number(text) } : undefined),
  },
  binding: {
    field: 'binding',
    wants: '"dpop", "mtls" or "any"',
    read(text) {
      const binding = BINDINGS.find((known) => known === text);
      return binding && { binding };
    },
  },
  revocability: {
    field: 'revocability',
    wants: REVOCABILITY.map((known) => `"${known}"`).join(', '),
    read(text) {
      const revocability = REVOCABILITY.find((known) => known === text);
      return revocability && { revocability };
    },
  },
  approval: {
    field: 'approval',
    wants: 'a role and how many of its people, such as "security:2"',
    read: (text) => (/^[a-z][a-z0-9_-]{0,31}:[1-9]$/.test(text) ? { approval: text } : undefined),
  },
};

/** Annotations that say something to people only. */
const SPOKEN_ANNOTATIONS = ['id', 'description'];

/** A policy's limits, or what is wrong with its annotations: a limit that nobody reads would be a limit that nobody keeps. */
export function readLimits(
  effect: 'permit' | 'forbid',
  annotations: Record<string, string>,
): { limits: Limits; problems: string[] } {
  const limits: Limits = {};
  const problems: string[] = [];
  for (const [name, text] of Object.entries(annotations)) {
    if (SPOKEN_ANNOTATIONS.includes(name)) continue;
    const reader = Object.hasOwn(LIMIT_ANNOTATIONS, name) ? LIMIT_ANNOTATIONS[name] : undefined;
    if (reader === undefined) {
      problems.push(
        `@${name} is not known here${suggestion(name, [...Object.keys(LIMIT_ANNOTATIONS), ...SPOKEN_ANNOTATIONS])}`,
      );
      continue;
    }
    if (effect === 'forbid') {
      problems.push(`@${name} limits what is given, and a forbid gives nothing; put it on the policies that permit`);
      continue;
    }
    const read = reader.read(text);
    if (read) Object.assign(limits, read);
    else problems.push(`@${name}("${text}") must be ${reader.wants}`);
  }
  return { limits, problems };
}
