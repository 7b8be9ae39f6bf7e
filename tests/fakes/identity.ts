import type { X509Certificate } from 'node:crypto';
import { BrokerError } from '../../src/core/errors.js';
import type { ProvenIdentity, ProvenPerson, ProvenWorkload } from '../../src/core/identity.js';
import { parseSpiffeId, trustDomainOf } from '../../src/core/spiffe-id.js';
import type { Clock, EpochMs } from '../../src/core/time.js';
import type { IdentityProof, PeerCertificates, TrustBundles } from '../../src/plugins/identity/contract.js';

const HOUR_MS = 3_600_000;

export const PEOPLE_ISSUER = 'https://people.example';

/**
 * Identities that can be read: `svid:spiffe://dev.mayfly/agent/refunds;exp=1800003600;key=dev.mayfly#one` and
 * `person:alice;roles=operator,approver;exp=…;iat=…;may_act=spiffe://…`. `exp` and `iat` are seconds; without `exp` they live an hour
 * from now. Anything else is refused.
 */
export class FakeIdentity implements IdentityProof {
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async jwt(token: string): Promise<ProvenIdentity> {
    return this.#read(token);
  }

  async workloadJwt(token: string): Promise<ProvenWorkload> {
    const identity = this.#read(token);
    if (identity.kind !== 'workload') throw rejected('not a workload');
    return identity;
  }

  async personJwt(token: string): Promise<ProvenPerson> {
    const identity = this.#read(token);
    if (identity.kind !== 'person') throw rejected('not a person');
    return identity;
  }

  x509(peer: PeerCertificates): ProvenWorkload {
    const { svid } = peer.leaf as unknown as FakeLeaf;
    const identity = this.#read(svid);
    if (identity.kind !== 'workload') throw rejected('not a workload');
    return { ...identity, proof: 'x509-svid', certificateThumbprint: thumbprintOf(svid) };
  }

  #read(token: string): ProvenIdentity {
    const [head = '', ...rest] = token.split(';');
    const members = new Map(
      rest.map((member) => [member.slice(0, member.indexOf('=')), member.slice(member.indexOf('=') + 1)]),
    );
    const nowMs = this.#clock.now();
    const expiresAtMs = seconds(members.get('exp')) ?? nowMs + HOUR_MS;
    if (expiresAtMs <= nowMs) throw rejected('expired');
    const keyId = members.get('key');

    if (head.startsWith('person:')) {
      const mayAct = members.get('may_act');
      const authenticatedAtMs = seconds(members.get('auth_time'));
      return {
        kind: 'person',
        proof: 'oidc',
        issuer: PEOPLE_ISSUER,
        subject: head.slice('person:'.length),
        roles: (members.get('roles') ?? '').split(',').filter((role) => role !== ''),
        issuedAtMs: seconds(members.get('iat')) ?? nowMs,
        expiresAtMs,
        keyId: keyId ?? `${PEOPLE_ISSUER}#people-1`,
        ...(mayAct !== undefined && { mayAct: mayAct.split(',') }),
        ...(authenticatedAtMs !== undefined && { authenticatedAtMs }),
      };
    }
    const spiffeId = head.startsWith('svid:') ? parseSpiffeId(head.slice('svid:'.length)) : undefined;
    if (!spiffeId) throw rejected('not an identity');
    const trustDomain = trustDomainOf(spiffeId);
    return {
      kind: 'workload',
      proof: 'jwt-svid',
      spiffeId,
      trustDomain,
      expiresAtMs,
      keyId: keyId ?? `${trustDomain}#svid-1`,
      attributes: {},
    };
  }
}

/** The identity token of a workload. */
export function svid(spiffeId: string, members: { expMs?: EpochMs; key?: string } = {}): string {
  return `svid:${spiffeId}${membersOf({ ...(members.expMs !== undefined && { exp: String(Math.floor(members.expMs / 1_000)) }), ...(members.key && { key: members.key }) })}`;
}

/** The identity token of a person. */
export function person(
  subject: string,
  members: { roles?: string[]; expMs?: EpochMs; iatMs?: EpochMs; mayAct?: string[] } = {},
): string {
  return `person:${subject}${membersOf({
    ...(members.roles && { roles: members.roles.join(',') }),
    ...(members.expMs !== undefined && { exp: String(Math.floor(members.expMs / 1_000)) }),
    ...(members.iatMs !== undefined && { iat: String(Math.floor(members.iatMs / 1_000)) }),
    ...(members.mayAct && { may_act: members.mayAct.join(',') }),
  })}`;
}

interface FakeLeaf {
  svid: string;
}

/** What a connection with that X.509-SVID presents. Only the fake identity can read it. */
export function peer(spiffeId: string, members: { expMs?: EpochMs; key?: string } = {}): PeerCertificates {
  const leaf: FakeLeaf = { svid: svid(spiffeId, members) };
  return { leaf: leaf as unknown as X509Certificate, chain: [] };
}

/** The RFC 8705 thumbprint that such a connection has. */
export function thumbprintOf(svidText: string): string {
  return Buffer.from(svidText.padEnd(32, '.').slice(0, 32)).toString('base64url');
}

/** Trust bundles that tests turn by hand. */
export class FakeTrustBundles implements TrustBundles {
  keys = new Set<string>(['dev.mayfly#svid-1', `${PEOPLE_ISSUER}#people-1`]);
  readonly #gone: ((keyIds: string[]) => void)[] = [];
  readonly #back: ((keyIds: string[]) => void)[] = [];

  get(): undefined {
    return undefined;
  }

  status(): ReturnType<TrustBundles['status']> {
    return [{ name: 'dev.mayfly', source: 'fake', ok: true, keys: this.keys.size }];
  }

  keyIds(): string[] {
    return [...this.keys];
  }

  onKeysGone(listener: (keyIds: string[]) => void): void {
    this.#gone.push(listener);
  }

  onKeysBack(listener: (keyIds: string[]) => void): void {
    this.#back.push(listener);
  }

  remove(keyId: string): void {
    this.keys.delete(keyId);
    for (const listener of this.#gone) listener([keyId]);
  }

  restore(keyId: string): void {
    this.keys.add(keyId);
    for (const listener of this.#back) listener([keyId]);
  }

  async close(): Promise<void> {}
}

function membersOf(members: Record<string, string>): string {
  return Object.entries(members)
    .map(([name, value]) => `;${name}=${value}`)
    .join('');
}

function seconds(text: string | undefined): EpochMs | undefined {
  return text === undefined ? undefined : Number(text) * 1_000;
}

function rejected(reason: string): BrokerError {
  return new BrokerError('identity_rejected', 'The identity was not accepted.', { reason });
}
