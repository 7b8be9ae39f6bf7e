import { connect } from 'node:net';
import type { Parts } from '../../src/broker/parts.js';
import type { Route } from '../../src/edge/http/route.js';
import { routes as everyRoute } from '../../src/edge/http/routes/index.js';
import { type HttpDoor, type HttpDoorOptions, openHttpDoor } from '../../src/edge/http/server.js';
import { FakeIdentity } from '../fakes/identity.js';
import { ProofMaker } from '../fakes/issuer.js';
import { type FakeParts, type FakePartsOptions, fakeParts, ISSUER } from '../fakes/parts.js';

/** A door on fakes, on a free port, and ways to knock. */
export interface OpenDoor {
  parts: FakeParts;
  door: HttpDoor;
  url: string;
  /** `as`: an identity of tests/fakes/identity.ts, sent as bearer. */
  call(method: string, path: string, options?: Call): Promise<Answer>;
  /** Bytes on a plain socket, and all that came back until the door closed it. */
  raw(text: string): Promise<string>;
  /** A person with an operator token bound to a DPoP key: every call proves it anew. */
  operator(person: string): Promise<(method: string, path: string, options?: Call) => Promise<Answer>>;
  close(): Promise<void>;
}

export interface Call {
  as?: string;
  json?: unknown;
  form?: Record<string, string | string[]> | string;
  body?: string | Uint8Array;
  headers?: Record<string, string>;
}

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came.
  body: any;
}

/** The fakes' identities have signs that no header may carry: on the wire they are base64url. */
export function bearer(identity: string): string {
  return Buffer.from(identity).toString('base64url');
}

class WireIdentity extends FakeIdentity {
  override jwt(token: string) {
    return super.jwt(unwrapped(token));
  }
  override workloadJwt(token: string) {
    return super.workloadJwt(unwrapped(token));
  }
  override personJwt(token: string) {
    return super.personJwt(unwrapped(token));
  }
}

function unwrapped(token: string): string {
  return /^[A-Za-z0-9_-]+$/.test(token) ? Buffer.from(token, 'base64url').toString() : token;
}

export async function openDoor({
  routes,
  parts: given,
  ...options
}: FakePartsOptions & Partial<HttpDoorOptions> & { routes?: readonly Route[] } = {}): Promise<OpenDoor> {
  const parts = fakeParts({ ...options, ...(given && { parts: given as Partial<Parts> }) });
  if (!given?.identity) parts.identity = new WireIdentity(parts.clock);
  const door = await openHttpDoor(parts, {
    plain: options.plain ?? { host: '127.0.0.1', port: 0 },
    checkReplies: true,
    ...(options.mtls && { mtls: options.mtls }),
    ...(options.limits && { limits: options.limits }),
    routes: routes ?? everyRoute,
  });
  const url = `http://127.0.0.1:${door.plain.port}`;
  return {
    parts,
    door,
    url,
    call: (method, path, sent = {}) => call(url, method, path, sent),
    raw: (text) => raw(door.plain.port, text),
    operator: (identity) => operator(parts, url, identity),
    close: () => door.close(0),
  };
}

async function call(url: string, method: string, path: string, sent: Call): Promise<Answer> {
  const headers: Record<string, string> = {};
  if (sent.as !== undefined) headers['authorization'] = `Bearer ${bearer(sent.as)}`;
  let body: string | Uint8Array | undefined = sent.body;
  if (sent.json !== undefined) {
    headers['content-type'] = 'application/json';
    body = JSON.stringify(sent.json);
  }
  if (sent.form !== undefined) {
    headers['content-type'] = 'application/x-www-form-urlencoded';
    body = typeof sent.form === 'string' ? sent.form : formOf(sent.form);
  }
  const response = await fetch(url + path, {
    method,
    headers: { ...headers, ...sent.headers },
    redirect: 'manual',
    ...(body !== undefined && { body: body as string }),
  });
  const text = await response.text();
  const isJson = response.headers.get('content-type')?.includes('json') === true && text !== '';
  return { status: response.status, headers: response.headers, text, body: isJson ? JSON.parse(text) : undefined };
}

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ID_TOKEN = 'urn:ietf:params:oauth:token-type:id_token';

async function operator(parts: FakeParts, url: string, identity: string) {
  const maker = new ProofMaker();
  const prove = (method: string, path: string, accessToken?: string) =>
    maker.prove({
      htm: method,
      htu: `${ISSUER}${path.split('?', 1)[0]}`,
      iat: Math.floor(parts.clock.now() / 1000),
      ...(accessToken !== undefined && { accessToken }),
    });
  const minted = await call(url, 'POST', '/oauth2/token', {
    form: { grant_type: EXCHANGE, subject_token: bearer(identity), subject_token_type: ID_TOKEN },
    headers: { dpop: prove('POST', '/oauth2/token') },
  });
  if (minted.status !== 200) throw new Error(`no operator token: ${minted.text}`);
  const token: string = minted.body.access_token;
  return (method: string, path: string, sent: Call = {}) =>
    call(url, method, path, {
      ...sent,
      headers: { authorization: `DPoP ${token}`, dpop: prove(method, path, token), ...sent.headers },
    });
}

function formOf(members: Record<string, string | string[]>): string {
  const form = new URLSearchParams();
  for (const [name, value] of Object.entries(members)) for (const one of [value].flat()) form.append(name, one);
  return form.toString();
}

function raw(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(text));
    let received = '';
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      received += chunk;
    });
    socket.on('close', () => resolve(received));
    socket.on('error', reject);
  });
}
