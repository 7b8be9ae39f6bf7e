import type { TokenRefusal, TokenRefusalReason } from '../../client/token-refusal.js';

/** What a token was checked against. */
export interface Checked {
  token: string;
  audience: string;
  issuer: string;
  tool?: string;
  /** Who reads the feed. */
  as: string;
}

/** Why a token is not taken, in words for whoever typed the command: what it says, and what was asked for. */
export function verdictOn(refusal: TokenRefusal, checked: Checked): string {
  return `${WORDS[refusal.reason](checked, refusal)} (${refusal.reason})`;
}

type Words = (checked: Checked, refusal: TokenRefusal) => string;

const asItIs: Words = (_, { detail }) => `${detail}.`;
const bound: Words = () => 'the token is bound to a key, and without its holder nobody can show a proof for it.';

const WORDS: Record<TokenRefusalReason, Words> = {
  missing: () => 'there is no token.',
  'two-tokens': asItIs,
  size: asItIs,
  spelling: () =>
    'this is no token: what is expected is a token as it was given, a compact JWS, three parts with a dot between.',
  header: ({ token }, { detail }) => {
    const { typ } = partOf(token, 0);
    if (typ === 'at+jwt') return `${detail}.`;
    return `this is no task token but a JWT of another kind${typeof typ === 'string' ? `: its typ is ${typ}` : ''}. An SVID is none.`;
  },
  algorithm: asItIs,
  kid: ({ token, issuer }) => `no key of ${issuer} has signed it${saysOf(token, 'iss', 'its issuer')}.`,
  payload: ({ token, issuer }, { detail }) => {
    const { iss } = partOf(token, 1);
    return typeof iss === 'string' && iss !== issuer
      ? `the token is from ${iss}, and what was asked for is one from ${issuer}.`
      : `${detail}.`;
  },
  times: asItIs,
  signature: asItIs,
  audience: ({ token, audience }) => {
    const { aud } = partOf(token, 1);
    return `the token is for ${String(aud)}, and what was asked for is one for ${audience}.`;
  },
  cell: asItIs,
  expired: ({ token }) => {
    const { exp } = partOf(token, 1);
    return `the token expired${typeof exp === 'number' ? ` at ${new Date(exp * 1_000).toISOString()}` : ''}.`;
  },
  revoked: () => 'the token was revoked.',
  'position-ahead': () => 'the token is newer than the feed of revocations that could be read; try again.',
  'not-ready': ({ as }, { detail }) => `${as} cannot read the feed of revocations: ${sentence(detail)}`,
  stale: asItIs,
  unbound: asItIs,
  binding: bound,
  dpop: bound,
  'dpop-replay': asItIs,
  'dpop-nonce': asItIs,
  'decision-point-missing': asItIs,
  'decision-point': asItIs,
  denied: asItIs,
  tool: ({ token, tool }) => {
    const scope = String(partOf(token, 1)['scope'] ?? '').split(' ');
    const tools = scope.filter((name) => name !== '' && !name.startsWith('task:'));
    return `the token carries ${tools.length === 0 ? 'no tool' : tools.join(', ')}, and not ${String(tool)}.`;
  },
};

function sentence(text: string): string {
  return /[.?]$/.test(text) ? text : `${text}.`;
}

function saysOf(token: string, claim: string, what: string): string {
  const value = partOf(token, 1)[claim];
  return typeof value === 'string' ? `; ${what} is ${value}, as it says` : '';
}

/** What a part says, unverified: for telling, never for trusting. */
function partOf(token: string, at: 0 | 1): Record<string, unknown> {
  try {
    return Object(JSON.parse(Buffer.from(token.split('.')[at] ?? '', 'base64url').toString('utf8')));
  } catch {
    return {};
  }
}
