import type { Principal } from '../core/agent.js';
import type { AuditRecord } from '../core/audit.js';
import type { TaskClaims } from '../core/claims.js';
import { nameOf } from '../core/identity.js';
import type { PeerCertificates } from '../plugins/identity/contract.js';

/** What a request brought to show who is asking, as the door read it. Nothing here is believed yet. */
export interface Evidence {
  authorization?: { scheme: 'Bearer' | 'DPoP'; token: string };
  /** From our own TLS layer only, never from a header. */
  peer?: PeerCertificates;
  /** The one `DPoP` header. */
  dpop?: string;
  method: string;
  /** The request's own URL under the address it was sent to, without query: what a DPoP proof names. */
  url: string;
  requestId: string;
  traceId?: string;
}

/** Who is asking, proven. */
export interface Caller {
  principal: Principal;
  /** `nameOf` its identity: SPIFFE ID, or `<issuer>#<subject>`. */
  name: string;
  /** The identity is bound to a key of this connection or request: mTLS, or a DPoP-bound operator token. */
  bound: boolean;
  /** Present when the caller came with a token of ours whose only audience is the issuer. */
  token?: TaskClaims;
  binding: 'none' | 'dpop' | 'mtls';
  /** RFC 8705 thumbprint of the certificate of this connection. */
  certificateThumbprint?: string;
  /** RFC 7638 thumbprint of the DPoP key of this request. */
  dpopThumbprint?: string;
  requestId: string;
  traceId?: string;
}

/** The three identities of a record, never mixed. */
export function actorOf(caller: Caller): AuditRecord['actor'] {
  const { principal } = caller;
  const actor: AuditRecord['actor'] = { proof: principal.identity.proof };
  if (principal.kind === 'person') actor.person = nameOf(principal.identity);
  else actor.workload = principal.identity.spiffeId;
  if (principal.kind === 'agent' && principal.declaration.model) actor.model = principal.declaration.model;
  return actor;
}
