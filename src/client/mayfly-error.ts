import { ERRORS, type ErrorCode } from '../core/errors.js';

/** What the broker said no with, or that it could not be asked. */
export interface Problem {
  code: ErrorCode;
  /** HTTP status; 0 when no answer came. */
  status: number;
  message: string;
  /** What can be done about it. */
  hint?: string;
  /** The offending field by its wire name. */
  field?: string;
  /** The recorded decision that explains a refusal: `mayfly why ID`. */
  decisionId?: string;
  policyIds?: string[];
  /** Several named problems at once, such as those of a bundle. */
  problems?: string[];
  requestId?: string;
  retryAfterSeconds?: number;
  cause?: unknown;
}

/** Every failed call to a broker is one of these; the subclasses are the answers that programs usually treat apart. */
export class MayflyError extends Error {
  readonly code: ErrorCode;
  readonly status: number;
  readonly hint: string | undefined;
  readonly field: string | undefined;
  readonly decisionId: string | undefined;
  readonly policyIds: string[];
  readonly problems: string[];
  readonly requestId: string | undefined;
  readonly retryAfterSeconds: number | undefined;

  constructor(problem: Problem) {
    super(problem.message, problem.cause === undefined ? undefined : { cause: problem.cause });
    this.name = new.target.name;
    this.code = problem.code;
    this.status = problem.status;
    this.hint = problem.hint;
    this.field = problem.field;
    this.decisionId = problem.decisionId;
    this.policyIds = problem.policyIds ?? [];
    this.problems = problem.problems ?? [];
    this.requestId = problem.requestId;
    this.retryAfterSeconds = problem.retryAfterSeconds;
  }

  /** Exit code of a command that ends with this: 1 usage, 2 server, 3 denied, 4 waiting. */
  get exitCode(): number {
    return ERRORS[this.code].exit;
  }
}

/** Policy does not allow it. `decisionId` and `policyIds` say by which decision, `hint` what would help. */
export class Denied extends MayflyError {}
/** A human has to approve it first. */
export class ApprovalRequired extends MayflyError {}
/** The task is over or suspended, or the token was revoked: what was given for it is worth nothing. */
export class Revoked extends MayflyError {}
/** The time is up. */
export class Expired extends MayflyError {}
/** Nobody can decide right now; the outcome of a change is unknown, and repeating it is safe. */
export class Unavailable extends MayflyError {}
/** The request is wrong as it stands; repeating it changes nothing. */
export class InvalidRequest extends MayflyError {}
/** Our own identity was not accepted. */
export class IdentityRejected extends MayflyError {}
/** There is no such thing, or it is not ours to see. */
export class NotFound extends MayflyError {}
/** What is there has changed, or stands against it. */
export class Conflict extends MayflyError {}

const CLASSES: Partial<Record<ErrorCode, typeof MayflyError>> = {
  denied: Denied,
  scope_insufficient: Denied,
  approval_pending: ApprovalRequired,
  task_over: Revoked,
  task_suspended: Revoked,
  token_refused: Revoked,
  unavailable: Unavailable,
  internal: Unavailable,
  quota_exceeded: Unavailable,
  identity_rejected: IdentityRejected,
  subject_rejected: IdentityRejected,
  grant_rejected: IdentityRejected,
  not_found: NotFound,
  conflict: Conflict,
  generation_mismatch: Conflict,
  key_reused: Conflict,
};

export function mayflyError(problem: Problem): MayflyError {
  const { status } = ERRORS[problem.code];
  const Class = CLASSES[problem.code] ?? (status >= 400 && status < 500 ? InvalidRequest : MayflyError);
  return new Class(problem);
}

/** Reads a refusal: `application/problem+json` (RFC 9457) or an OAuth error (RFC 6749), both with our `code`. */
export function problemOf(status: number, headers: Headers, body: unknown): Problem {
  const face = Object(body) as Record<string, unknown>;
  const code = isCode(face['code']) ? face['code'] : codeOfStatus(status);
  const message = text(face['detail']) ?? text(face['error_description']) ?? ERRORS[code].title;
  const retryAfter = Number(headers.get('retry-after') ?? Number.NaN);
  return defined({
    code,
    status,
    message,
    hint: text(face['hint']),
    field: text(face['field']),
    decisionId: text(face['decision_id']),
    policyIds: texts(face['policy_ids']),
    problems: texts(face['problems']),
    requestId: text(face['request_id']),
    retryAfterSeconds: Number.isFinite(retryAfter) ? retryAfter : undefined,
  });
}

function isCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && Object.hasOwn(ERRORS, value);
}

/** For answers that are not the broker's own, such as a proxy's. */
function codeOfStatus(status: number): ErrorCode {
  if (status === 401) return 'identity_rejected';
  if (status === 403) return 'denied';
  if (status === 404) return 'not_found';
  if (status === 429) return 'quota_exceeded';
  return status >= 400 && status < 500 ? 'invalid_request' : 'unavailable';
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function texts(value: unknown): string[] | undefined {
  return Array.isArray(value) && value.every((one) => typeof one === 'string') ? value : undefined;
}

function defined(problem: { [Member in keyof Problem]: Problem[Member] | undefined }): Problem {
  return Object.fromEntries(Object.entries(problem).filter(([, value]) => value !== undefined)) as unknown as Problem;
}
