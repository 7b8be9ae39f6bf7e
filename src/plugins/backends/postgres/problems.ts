import { BackendProblem, type BackendProblemKind } from '../contract.js';

/** SQLSTATEs, or their first two characters, that say more than "it said no". */
const KINDS: Record<string, BackendProblemKind> = {
  '08': 'unreachable',
  '28': 'forbidden',
  '40': 'busy',
  '53': 'busy',
  '57': 'unreachable',
  '57014': 'timeout',
  '42501': 'forbidden',
  '55P03': 'busy',
  '25006': 'misconfigured',
  '3D000': 'misconfigured',
  '42704': 'misconfigured',
  XX000: 'busy',
};

const MEANINGS: Record<string, string> = {
  '25006': 'the server is read-only: a standby',
  '28000': 'the login is not permitted',
  '28P01': 'the password is not accepted',
  '2BP01': 'other objects depend on it',
  '3D000': 'there is no such database',
  '40001': 'it ran into another transaction',
  '40P01': 'it ran into another transaction',
  '42501': 'the rights do not suffice',
  '42704': 'there is no such role',
  '42710': 'the role is there already',
  '53300': 'there are no connections left',
  '55P03': 'another transaction holds a lock',
  '57014': 'it took too long',
  '57P01': 'the server is going down',
  '57P03': 'the server is starting',
  XX000: 'it ran into another transaction',
};

/** Transactions that ran into each other: another try is all it takes. */
const TRANSIENT = new Set(['XX000', '40001', '40P01']);

const UNREACHABLE = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOENT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EPIPE',
  'ETIMEDOUT',
]);

/** The SQLSTATE of what the server itself answered; undefined for anything else that went wrong. */
export function sqlStateOf(error: unknown): string | undefined {
  const { code, severity } = (error ?? {}) as { code?: unknown; severity?: unknown };
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && severity !== undefined ? code : undefined;
}

export function isTransient(error: unknown): boolean {
  return TRANSIENT.has(sqlStateOf(error) ?? '');
}

/** True when the transaction of this error certainly left nothing: the server said that it failed, and lives on to say so. */
export function isRolledBack(error: unknown): boolean {
  const state = sqlStateOf(error);
  return state !== undefined && !/^(08|57P|58)/.test(state) && (error as { severity: string }).severity === 'ERROR';
}

/**
 * A problem in our own words. The vendor's error is not kept, not even as a cause: its text quotes names, hosts and, at times, statements.
 */
export function problemOf(error: unknown, doing: string): BackendProblem {
  if (error instanceof BackendProblem) return error;
  const state = sqlStateOf(error);
  if (state !== undefined) {
    const kind = KINDS[state] ?? KINDS[state.slice(0, 2)] ?? 'failed';
    const meaning = MEANINGS[state];
    return new BackendProblem(
      kind,
      `PostgreSQL could not ${doing}: ${meaning ? `${meaning}, ` : ''}SQLSTATE ${state}`,
      {
        isSure: isRolledBack(error),
      },
    );
  }
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  if (typeof code === 'string' && /CERT|TLS|SSL|SIGNATURE|ISSUER/.test(code)) {
    return new BackendProblem('misconfigured', `Could not ${doing}: the TLS connection failed, ${code}`);
  }
  if (typeof code === 'string' && UNREACHABLE.has(code)) {
    return new BackendProblem('unreachable', `Could not ${doing}: PostgreSQL cannot be reached, ${code}`);
  }
  if (/does not support SSL/.test(String(message))) {
    return new BackendProblem('misconfigured', `Could not ${doing}: the server does not speak TLS`);
  }
  if (/time-?out/i.test(String(message))) {
    return new BackendProblem('timeout', `Could not ${doing}: PostgreSQL did not answer in time`);
  }
  return new BackendProblem('unreachable', `Could not ${doing}: the connection to PostgreSQL was lost`);
}
