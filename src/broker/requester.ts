import { BrokerError, type ErrorCode } from '../core/errors.js';
import { nameOf, type ProvenIdentity, type ProvenPerson, type ProvenWorkload } from '../core/identity.js';
import { proveDpop } from './authenticate.js';
import type { Evidence } from './caller.js';
import { isOwnToken, type OwnToken, readOwnToken, tokenRefused } from './own-token.js';
import type { Parts } from './parts.js';
import { ACCESS_TOKEN_TYPE, type TokenRequest } from './token-request.js';

/** Under which error a proof that is not good enough is refused, by grant (RFC 8693 section 2.2.2, RFC 6749 section 5.2, RFC 7523 section 3.1). */
const REFUSED_AS = { exchange: 'subject_rejected', client: 'identity_rejected', assertion: 'grant_rejected' } as const;

type Grant = keyof typeof REFUSED_AS;

const GRANTS = new Map<string, Grant>([
  ['urn:ietf:params:oauth:grant-type:token-exchange', 'exchange'],
  ['client_credentials', 'client'],
  ['urn:ietf:params:oauth:grant-type:jwt-bearer', 'assertion'],
]);

const JWT_TYPES = [
  'urn:ietf:params:oauth:token-type:jwt',
  'urn:ietf:params:oauth:token-type:jwt_spiffe',
  'urn:ietf:params:oauth:token-type:id_token',
];
const JWT_SPIFFE_ASSERTION = 'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe';

/** Who asks for a token, and for whom. */
export interface Requester {
  /** The workload that will hold the token; absent when a person asks for an operator token. */
  agent?: ProvenWorkload;
  /** The person on whose behalf, proven by that person's own token. */
  person?: ProvenPerson;
  /** The token of ours that is being narrowed or passed on. */
  parent?: OwnToken;
  binding: 'none' | 'dpop' | 'mtls';
  confirmation?: { jkt: string } | { 'x5t#S256': string };
}

/**
 * Reads every identity a token request brought and says which is which. Several proofs of the workload have to name the same one.
 * Client authentication that fails is `identity_rejected`, a bad subject or actor token `subject_rejected`, a bad assertion `grant_rejected`.
 */
export async function readRequester(parts: Parts, request: TokenRequest): Promise<Requester> {
  const grant = GRANTS.get(request.grantType);
  if (!grant) {
    throw new BrokerError('grant_type_unsupported', 'The grant_type is not supported.', {
      field: 'grant_type',
      hint: `Supported: ${[...GRANTS.keys()].join(', ')}.`,
    });
  }
  checkParameters(request, grant);
  const { evidence } = request;
  const workloads: ProvenWorkload[] = [];
  refuseAuthorization(request);
  if (evidence.peer) workloads.push(parts.identity.x509(evidence.peer));
  if (request.clientAssertion) {
    workloads.push(await as('identity_rejected', () => parts.identity.workloadJwt(request.clientAssertion as string)));
  }
  const subject = request.subjectToken
    ? await readSubject(parts, request.subjectToken, request.subjectTokenType)
    : undefined;
  if (subject?.kind === 'workload') workloads.push(subject);
  if (request.actorToken) {
    workloads.push(await as('subject_rejected', () => parts.identity.workloadJwt(request.actorToken as string)));
  }
  if (request.assertion) {
    workloads.push(await as('grant_rejected', () => parts.identity.workloadJwt(request.assertion as string)));
  }
  const agent = theOne(workloads, request);
  const person = subject?.kind === 'person' ? subject : undefined;
  if (person && agent) mayActFor(parts, person, agent);
  const parent = subject?.kind === 'own' ? subject.token : undefined;
  if (!agent && grant === 'client') {
    throw new BrokerError('identity_rejected', 'The client was not authenticated.', {
      hint: 'Send client_assertion (a JWT-SVID, type jwt-spiffe), or connect with an X.509-SVID and send client_id.',
    });
  }
  if (parent && !agent) {
    throw new BrokerError('identity_rejected', 'Passing a token on needs the identity of who will hold it.', {
      hint: 'Add actor_token, client_assertion or an X.509-SVID.',
    });
  }
  const { binding, confirmation } = await bindingOf(parts, evidence);
  return {
    binding,
    ...(confirmation && { confirmation }),
    ...(agent && { agent }),
    ...(person && { person }),
    ...(parent && { parent }),
  };
}

/** Nobody authenticates here by header; beside another proof it is a second mechanism (RFC 6749 sections 2.3 and 5.2). */
function refuseAuthorization({ evidence, clientAssertion }: TokenRequest): void {
  if (!evidence.authorization) return;
  if (evidence.peer || clientAssertion)
    throw invalid('authorization', 'There is one client authentication per request.');
  throw new BrokerError('identity_rejected', 'The token endpoint takes no Authorization header.', {
    field: 'authorization',
    hint: 'Send the identity as subject_token, assertion or client_assertion, or connect with an X.509-SVID.',
  });
}

/** On somebody's behalf: that person's token has to be recent, and may say who acts (RFC 8693 section 4.4). */
function mayActFor(parts: Parts, person: ProvenPerson, agent: ProvenWorkload): void {
  if (person.mayAct && !person.mayAct.includes(agent.spiffeId)) {
    throw new BrokerError('subject_rejected', 'That person did not let this workload act for them.', {
      field: 'subject_token',
      reason: `may_act: ${person.mayAct.join(', ')}`,
    });
  }
  if (parts.clock.now() - person.issuedAtMs > parts.settings.personTokenAgeMsMax) {
    throw new BrokerError('subject_rejected', 'The token is too old.', {
      field: 'subject_token',
      hint: 'Sign in again and fetch a new one.',
    });
  }
}

type Subject = ProvenIdentity | { kind: 'own'; token: OwnToken };

async function readSubject(parts: Parts, token: string, type: string | undefined): Promise<Subject> {
  if (isOwnToken(parts, token)) {
    if (type !== ACCESS_TOKEN_TYPE)
      throw invalid('subject_token_type', `A token minted here is of type ${ACCESS_TOKEN_TYPE}.`);
    const own = await as('subject_rejected', async () => {
      try {
        return await readOwnToken(parts, token);
      } catch (error) {
        throw tokenRefused(error);
      }
    });
    if (own.claims.aud !== parts.settings.issuer) {
      throw new BrokerError('subject_rejected', 'The subject_token was not accepted.', {
        reason: `audience ${own.claims.aud}`,
        hint: 'Only a token whose audience is this issuer can be passed on.',
      });
    }
    if (own.dead)
      throw new BrokerError('subject_rejected', 'The subject_token was not accepted.', { reason: own.dead });
    return { kind: 'own', token: own };
  }
  if (!JWT_TYPES.includes(type ?? '') && type !== ACCESS_TOKEN_TYPE) {
    throw invalid('subject_token_type', `Send one of ${[...JWT_TYPES, ACCESS_TOKEN_TYPE].join(', ')}.`);
  }
  return as('subject_rejected', () => parts.identity.jwt(token));
}

/** All proofs of the workload name the same one; the life is that of the shortest. */
function theOne(workloads: ProvenWorkload[], request: TokenRequest): ProvenWorkload | undefined {
  const [first, ...others] = workloads;
  if (!first) return undefined;
  if (others.some((other) => other.spiffeId !== first.spiffeId)) {
    throw new BrokerError('invalid_request', 'The request names two workload identities.', {
      hint: 'The connection, client_assertion, subject_token and actor_token have to be of the same workload.',
    });
  }
  if (request.clientId !== undefined && request.clientId !== first.spiffeId) {
    throw new BrokerError('identity_rejected', 'The client was not authenticated.', {
      field: 'client_id',
      hint: 'client_id is the SPIFFE ID of the identity that is presented.',
    });
  }
  return { ...first, expiresAtMs: Math.min(...workloads.map((workload) => workload.expiresAtMs)) };
}

/** DPoP when a proof was sent, else the connection's certificate, so that what came over mTLS is bound by default. */
async function bindingOf(parts: Parts, evidence: Evidence): Promise<Pick<Requester, 'binding' | 'confirmation'>> {
  if (evidence.dpop !== undefined) {
    return { binding: 'dpop', confirmation: { jkt: await proveDpop(parts, evidence) } };
  }
  if (!evidence.peer) return { binding: 'none' };
  const { certificateThumbprint } = parts.identity.x509(evidence.peer);
  return certificateThumbprint
    ? { binding: 'mtls', confirmation: { 'x5t#S256': certificateThumbprint } }
    : { binding: 'none' };
}

function checkParameters(request: TokenRequest, grant: Grant): void {
  if (grant === 'exchange' && !request.subjectToken) throw invalid('subject_token', 'Token exchange needs it.');
  if (grant === 'exchange' && !request.subjectTokenType)
    throw invalid('subject_token_type', 'Token exchange needs it.');
  if (grant !== 'exchange' && request.subjectToken) throw invalid('subject_token', 'Only token exchange takes it.');
  if (grant !== 'exchange' && request.actorToken) throw invalid('actor_token', 'Only token exchange takes it.');
  if (grant === 'assertion' && !request.assertion) throw invalid('assertion', 'The jwt-bearer grant needs it.');
  if (grant !== 'assertion' && request.assertion) throw invalid('assertion', 'Only the jwt-bearer grant takes it.');
  if (Boolean(request.actorToken) !== Boolean(request.actorTokenType)) {
    throw invalid('actor_token_type', 'actor_token and actor_token_type come together.');
  }
  if (request.actorTokenType !== undefined && !JWT_TYPES.includes(request.actorTokenType)) {
    throw invalid('actor_token_type', `Send one of ${JWT_TYPES.join(', ')}.`);
  }
  if (Boolean(request.clientAssertion) !== Boolean(request.clientAssertionType)) {
    throw invalid('client_assertion_type', 'client_assertion and client_assertion_type come together.');
  }
  if (request.clientAssertionType !== undefined && request.clientAssertionType !== JWT_SPIFFE_ASSERTION) {
    // RFC 6749 section 5.2: an unsupported authentication method is a failed authentication.
    throw new BrokerError('identity_rejected', 'The client was not authenticated.', {
      field: 'client_assertion_type',
      hint: `Send ${JWT_SPIFFE_ASSERTION}.`,
    });
  }
  const { requestedTokenType } = request;
  if (requestedTokenType !== undefined && ![ACCESS_TOKEN_TYPE, JWT_TYPES[0]].includes(requestedTokenType)) {
    throw invalid('requested_token_type', `Only ${ACCESS_TOKEN_TYPE} is minted.`);
  }
  const peerAlone = request.evidence.peer && !request.clientAssertion && grant === 'client';
  if (peerAlone && request.clientId === undefined) {
    throw invalid('client_id', 'With an X.509-SVID, client_id is the SPIFFE ID in it.');
  }
}

/** The same failure under the name that RFC 8693, 7523 or 6749 has for this place. */
async function as<T>(code: ErrorCode, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof BrokerError) || !['identity_rejected', 'token_refused'].includes(error.code)) throw error;
    throw new BrokerError(code, error.message, { ...error.detail, cause: error });
  }
}

/** The name that a proof without enough life left is refused under: that of the place it came in. */
export function refusedAs({ grantType }: TokenRequest): ErrorCode {
  return REFUSED_AS[GRANTS.get(grantType) ?? 'client'];
}

function invalid(field: string, message: string): BrokerError {
  return new BrokerError('invalid_request', `${field}: ${message}`, { field });
}

export function requesterName(requester: Requester): string {
  const identity = requester.agent ?? requester.person;
  return identity ? nameOf(identity) : 'nobody';
}

/** The person on whose behalf, by name. */
export function requesterPerson({ person }: Requester): string | undefined {
  return person && nameOf(person);
}
