import { BackendProblem, type BackendProblemKind } from '../contract.js';

/**
 * An answer other than 2xx, with what it says of itself. The texts quote users, hosts and databases (a failed revocation does), so they are looked at in
 * here and never shown: only words of our own list are.
 */
export class VaultAnswer extends Error {
  readonly status: number;
  readonly #texts: string[];

  constructor(status: number, body: unknown) {
    super(`status ${status}`);
    this.name = 'VaultAnswer';
    this.status = status;
    const errors = (body as { errors?: unknown } | undefined)?.errors;
    this.#texts = Array.isArray(errors) ? errors.filter((one) => typeof one === 'string') : [];
  }

  says(phrase: string): boolean {
    return this.#texts.some((text) => text.toLowerCase().includes(phrase));
  }

  /** The phrase of ours that it contains, for people. */
  inWords(): string {
    const phrase = PHRASES.find((one) => this.says(one));
    return phrase === undefined ? `status ${this.status}` : `status ${this.status}, ${phrase}`;
  }
}

/** Texts of Vault and OpenBao that tell an operator what is wrong and quote nothing. */
const PHRASES = [
  'failed to revoke entry',
  'invalid lease',
  'lease not found',
  'lease is not renewable',
  'invalid accessor',
  'token not found',
  'unknown role',
  'no handler for route',
  'unsupported path',
  'unsupported operation',
  'vault is sealed',
  'missing client token',
  'invalid role or secret id',
  'invalid role id',
  'invalid secret id',
  'error validating token',
  'invalid audience',
  'namespace not found',
  'local node not active',
  'permission denied',
  'context deadline exceeded',
  'no secret engine',
];

/** What an answer means for whoever asked. `isSure`: it says no before anything is done. */
export function problemOf(error: unknown, doing: string): BackendProblem {
  if (error instanceof BackendProblem) return error;
  if (!(error instanceof VaultAnswer)) return new BackendProblem('failed', `${doing}: an answer of an unexpected form`);
  const [kind, isSure] = meaningOf(error);
  const advice = ADVICE[error.status];
  return new BackendProblem(kind, `${doing}: ${error.inWords()}${advice === undefined ? '' : ` (${advice})`}`, {
    isSure,
  });
}

function meaningOf(answer: VaultAnswer): [BackendProblemKind, isSure: boolean] {
  const { status } = answer;
  if (status >= 300 && status < 400) return ['misconfigured', true];
  if (answer.says('vault is sealed') || answer.says('local node not active')) return ['sealed', true];
  if (status === 503) return ['sealed', true];
  if (status === 472 || status === 473) return ['sealed', true];
  if (status === 429 || status === 412) return ['busy', true];
  if (status === 403) return ['forbidden', true];
  if (status === 502 || status === 504) return ['unreachable', false];
  if (status === 404 || status === 405) return ['misconfigured', true];
  if (answer.says('unknown role')) return ['misconfigured', true];
  return ['failed', false];
}

const ADVICE: Record<number, string> = {
  301: 'redirects are not followed',
  302: 'redirects are not followed',
  303: 'redirects are not followed',
  307: 'redirects are not followed: name the address of an active node, or of a load balancer in front of it',
  308: 'redirects are not followed',
  472: 'a standby of another cluster',
  473: 'a standby',
};

/** Errors of a connection that was never there: nothing of the request has been sent. */
const NOT_SENT =
  /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|ERR_TLS_)/;

export function networkProblem(error: unknown, when: { timedOut: boolean; givenUp: boolean }): BackendProblem {
  if (when.givenUp || when.timedOut) return new BackendProblem('timeout', 'no answer in time');
  const { code, cause } = error as { code?: unknown; cause?: { code?: unknown } };
  const word = typeof code === 'string' ? code : typeof cause?.code === 'string' ? cause.code : 'no connection';
  return new BackendProblem('unreachable', `no connection (${word.slice(0, 64)})`, { isSure: NOT_SENT.test(word) });
}
