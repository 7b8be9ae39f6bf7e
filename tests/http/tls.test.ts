import type { KeyObject } from 'node:crypto';
import { Agent, type RequestOptions, request } from 'node:https';
import { connect as plain } from 'node:net';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { BrokerError } from '../../src/core/errors.js';
import type { ProvenWorkload } from '../../src/core/identity.js';
import { parseSpiffeId, type SpiffeId, trustDomainOf } from '../../src/core/spiffe-id.js';
import { defineRoute } from '../../src/edge/http/route.js';
import type { PeerCertificates } from '../../src/plugins/identity/contract.js';
import { FakeIdentity } from '../fakes/identity.js';
import { certificateAuthority, type IssuedCertificate, keyPair } from '../fakes/issuing.js';
import { REFUNDS } from '../fakes/policy.js';
import { VirtualClock } from '../fakes/virtual-clock.js';
import { type OpenDoor, openDoor } from './open-door.js';

/** Reads the certificate that really came over TLS, and remembers what else did. */
class TlsIdentity extends FakeIdentity {
  seen: PeerCertificates[] = [];
  isTrusted = true;

  override x509(peer: PeerCertificates): ProvenWorkload {
    this.seen.push(peer);
    const spiffeId = parseSpiffeId(/URI:([^,]+)/.exec(peer.leaf.subjectAltName ?? '')?.[1] ?? '');
    if (!this.isTrusted || !spiffeId) throw new BrokerError('identity_rejected', 'The identity was not accepted.');
    return {
      kind: 'workload',
      proof: 'x509-svid',
      spiffeId: spiffeId as SpiffeId,
      trustDomain: trustDomainOf(spiffeId),
      expiresAtMs: Date.parse(peer.leaf.validTo),
      keyId: 'dev.mayfly#ca',
      certificateThumbprint: peer.leaf.fingerprint256,
      attributes: {},
    };
  }
}

const whoRoute = defineRoute({
  method: 'GET',
  path: '/v1/who',
  auth: 'bound',
  summary: 'Who',
  reply: { 200: z.unknown() },
  errors: [],
  handle: (_, { caller, evidence }) => ({ status: 200, body: { name: caller.name, url: evidence().url } }),
});

const pem = (key: KeyObject) => key.export({ type: 'pkcs8', format: 'pem' }) as string;
const soon = Date.now() + 3_600_000;
const validNow = { notBeforeMs: Date.now() - 60_000, notAfterMs: soon };

let authority: IssuedCertificate;
let intermediate: IssuedCertificate;
let server: IssuedCertificate;
let agent: IssuedCertificate;
let identity: TlsIdentity;
let clock: VirtualClock;
let door: OpenDoor;

beforeAll(async () => {
  authority = await certificateAuthority('dev.mayfly', validNow);
  intermediate = await authority.issue({
    uris: ['spiffe://dev.mayfly'],
    subject: 'O=intermediate',
    isCa: true,
    keyUsage: 4,
    extendedKeyUsage: null,
    key: keyPair('ES256', 7),
    ...validNow,
  });
  server = await authority.issue({
    dnsNames: ['localhost'],
    subject: 'CN=server',
    key: keyPair('ES256', 8),
    ...validNow,
  });
  agent = await intermediate.issue({ uris: [REFUNDS], subject: 'CN=agent', key: keyPair('ES256', 9), ...validNow });
  clock = new VirtualClock(Date.now());
  identity = new TlsIdentity(clock);
  door = await openDoor({
    clock,
    routes: [whoRoute],
    parts: { identity },
    mtls: {
      host: '127.0.0.1',
      port: 0,
      tls: { key: pem(server.privateKey), cert: server.certificate.toString() },
    },
  });
});
afterAll(() => door.close());
afterEach(() => {
  identity.isTrusted = true;
});

const asAgent = (): ConnectionOptions => ({
  key: pem(agent.privateKey),
  cert: [agent, intermediate, authority].map((one) => one.certificate.toString()).join('\n'),
});

function ask(options: RequestOptions = {}): Promise<{ status: number; body: Record<string, unknown> }> {
  return new Promise((resolve, reject) => {
    const asking = request(
      {
        host: '127.0.0.1',
        port: door.door.mtls?.port,
        path: '/v1/who',
        rejectUnauthorized: false,
        agent: false,
        ...options,
      },
      (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode as number, body: JSON.parse(text) }));
      },
    );
    asking.on('error', reject).end();
  });
}

function open(options: ConnectionOptions = {}): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port: door.door.mtls?.port, rejectUnauthorized: false, ...options });
    socket.on('secureConnect', () => resolve(socket)).on('error', reject);
  });
}

describe('the mTLS listener', () => {
  it('200: a certificate is evidence, with its chain, and a DPoP proof would name this listener', async () => {
    identity.seen = [];
    const { status, body } = await ask(asAgent());
    expect(status).toBe(200);
    expect(body).toEqual({ name: REFUNDS, url: 'https://mayfly.example:7118/v1/who' });
    const [peer] = identity.seen;
    expect(peer?.leaf.raw.equals(agent.certificate.raw)).toBe(true);
    // The self-signed root is its own issuer: it comes once, and the walk ends.
    expect(peer?.chain.map((one) => one.fingerprint256)).toEqual(
      [intermediate, authority].map((one) => one.certificate.fingerprint256),
    );
  });

  it('401: no certificate and no token', async () => {
    expect((await ask()).status).toBe(401);
  });

  it('401: a certificate that OpenSSL knows nothing of is for us alone to judge', async () => {
    identity.isTrusted = false;
    expect((await ask(asAgent())).status).toBe(401);
  });

  it('401: the certificate is judged on every request of a connection, not once', async () => {
    const keepAlive = new Agent({ keepAlive: true, maxSockets: 1 });
    try {
      expect((await ask({ ...asAgent(), agent: keepAlive })).status).toBe(200);
      identity.isTrusted = false;
      expect((await ask({ ...asAgent(), agent: keepAlive })).status).toBe(401);
      expect(Object.values(keepAlive.freeSockets).flat()).toHaveLength(1);
    } finally {
      keepAlive.destroy();
    }
  });

  it('refuses TLS 1.2', async () => {
    await expect(open({ ...asAgent(), maxVersion: 'TLSv1.2' })).rejects.toThrow();
  });

  it('resumes no session: a new connection shows its certificate again', async () => {
    const first = await open(asAgent());
    const session = await new Promise<Buffer>((resolve) => {
      first.on('session', resolve);
    });
    first.destroy();
    const second = await open({ ...asAgent(), session });
    expect(second.isSessionReused()).toBe(false);
    second.destroy();
  });

  it('closes a connection when its certificate is over', async () => {
    const brief = await intermediate.issue({
      uris: [REFUNDS],
      subject: 'CN=brief',
      key: keyPair('ES256', 10),
      notBeforeMs: Date.now() - 60_000,
      // Certificates count whole seconds.
      notAfterMs: Math.ceil(clock.now() / 1000) * 1000 + 1_000,
    });
    const socket = await open({
      key: pem(brief.privateKey),
      cert: [brief, intermediate].map((one) => one.certificate.toString()).join('\n'),
    });
    const closed = new Promise<void>((resolve) => {
      socket.on('close', () => resolve());
    });
    socket.on('error', () => {});
    clock.set(Date.parse(brief.certificate.validTo));
    await closed;
    clock.set(Date.now());
  });

  it('destroys what is not TLS without a word', async () => {
    const received = await new Promise<string>((resolve) => {
      let text = '';
      const socket = plain(door.door.mtls?.port as number, '127.0.0.1', () => socket.write('GET / HTTP/1.1\r\n\r\n'));
      socket.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      socket.on('close', () => resolve(text)).on('error', () => {});
    });
    expect(received).not.toContain('HTTP/1.1');
  });

  it('a handshake that is never begun, or never ends, holds no connection for longer than a head may take', async () => {
    const tls = { key: pem(server.privateKey), cert: server.certificate.toString() };
    const hasty = await openDoor({ limits: { headersTimeoutMs: 50 }, mtls: { host: '127.0.0.1', port: 0, tls } });
    try {
      for (const hello of [Buffer.alloc(0), Buffer.from([22])]) {
        const socket = plain(hasty.door.mtls?.port as number, '127.0.0.1');
        socket.on('error', () => {});
        if (hello.length > 0) socket.write(hello);
        await new Promise((resolve) => socket.once('close', resolve));
      }
    } finally {
      await hasty.close();
    }
  });

  it('takes a renewed certificate for new connections', async () => {
    const renewed = await authority.issue({
      dnsNames: ['localhost'],
      subject: 'CN=renewed',
      key: keyPair('ES256', 11),
      ...validNow,
    });
    door.door.renewCertificates({ mtls: { key: pem(renewed.privateKey), cert: renewed.certificate.toString() } });
    const socket = await open(asAgent());
    expect(socket.getPeerCertificate().subject.CN).toBe('renewed');
    socket.destroy();
    expect((await ask(asAgent())).status).toBe(200);
  });

  it('401: a certificate in a header is nothing', async () => {
    const { status } = await ask({
      headers: {
        'x-forwarded-client-cert': agent.certificate.toString().replaceAll('\n', ''),
        'x-ssl-client-verify': 'SUCCESS',
      },
    });
    expect(status).toBe(401);
  });
});
