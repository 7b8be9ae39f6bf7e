import { randomUUID } from 'node:crypto';
import { nodeFetch } from '../../src/client/transport.js';
import type { FakeDoor } from './door.js';
import { ProofMaker } from './issuer.js';

export const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
export const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
export const JWT = 'urn:ietf:params:oauth:token-type:jwt';
export const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
export const ID_TOKEN = 'urn:ietf:params:oauth:token-type:id_token';
export const JWT_SPIFFE = 'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe';
export const ORDERS = 'https://orders.example';

/** Undefined leaves a parameter out; a list sends it as often. */
export type Form = Record<string, string | string[] | undefined>;

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came.
  body: any;
}

export interface Sent {
  headers?: Record<string, string>;
  /** Over mTLS, with a fresh X.509-SVID of this path. */
  over?: string;
}

/** What the identities of the development trust domain can ask a door for. Paths such as `/agent/refunds` name them. */
export interface Knock {
  svid(path: string, ttlSeconds?: number): string;
  /** What a person's identity provider hands out. */
  person(subject: string, groups?: string[]): string;
  post(path: string, form: Form | string, sent?: Sent): Promise<Answer>;
  /** The token endpoint, with the answer as it is. */
  token(form: Form, sent?: Sent): Promise<Answer>;
  /** The parameters of a good exchange by the agent of that path. */
  exchange(path: string, task: string, more?: Form): Form;
  /** The claims of a token that has to be given. */
  minted(form: Form, sent?: Sent): Promise<{ token: string; answer: Answer; claims: Claims; header: Claims }>;
  /** A task of the sample orchestrator's, by its id. */
  task(more?: Record<string, unknown>): Promise<string>;
  /** `POST /v1/…` or another call of the API under the identity of that path. */
  api(
    method: string,
    path: string,
    as: string | undefined,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<Answer>;
  introspect(token: string, as?: string): Promise<Answer>;
  /** Calls of the API with an operator token of that person, bound to a key that proves each. */
  operator(
    subject: string,
    groups?: string[],
  ): Promise<(method: string, path: string, body?: unknown) => Promise<Answer>>;
  /** A DPoP proof for the token endpoint, or another address of the door. */
  proof(maker: ProofMaker, path?: string, more?: Record<string, unknown>): string;
}

// biome-ignore lint/suspicious/noExplicitAny: claims are compared, not computed with.
export type Claims = Record<string, any>;

export function knockAt(door: FakeDoor): Knock {
  const { url, mtlsUrl, trustDomain, parts } = door;
  const audience = url;

  const send = async (address: string, init: RequestInit, fetching: typeof fetch = fetch): Promise<Answer> => {
    const response = await fetching(address, { redirect: 'manual', ...init });
    const text = await response.text();
    const isJson = response.headers.get('content-type')?.includes('json') === true && text !== '';
    return { status: response.status, headers: response.headers, text, body: isJson ? JSON.parse(text) : undefined };
  };

  const overMtls = async (path: string): Promise<typeof fetch> => {
    const { certificatePem, keyPem } = await trustDomain.x509Svid({ path, ttlSeconds: 600 });
    return nodeFetch({ ca: trustDomain.caPem, cert: certificatePem, key: keyPem }) as unknown as typeof fetch;
  };

  const knock: Knock = {
    svid: (path, ttlSeconds = 600) => trustDomain.jwtSvid({ path, audience, ttlSeconds }),
    person: (subject, groups = []) => trustDomain.personToken({ subject, groups, audience, ttlSeconds: 600 }),
    async post(path, form, { headers, over } = {}) {
      const init = {
        method: 'POST',
        headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
        body: typeof form === 'string' ? form : encode(form),
      };
      if (over === undefined) return send(url + path, init);
      return send(mtlsUrl + path, init, await overMtls(over));
    },
    token: (form, sent) => knock.post('/oauth2/token', form, sent),
    exchange: (path, task, more = {}) => ({
      grant_type: EXCHANGE,
      subject_token: knock.svid(path),
      subject_token_type: JWT,
      resource: ORDERS,
      authorization_details: JSON.stringify([{ type: 'urn:mayfly:task', identifier: task }]),
      ...more,
    }),
    async minted(form, sent) {
      const answer = await knock.token(form, sent);
      if (answer.status !== 200) throw new Error(`no token: ${answer.status} ${answer.text}`);
      const token: string = answer.body.access_token;
      return { token, answer, header: partOf(token, 0), claims: partOf(token, 1) };
    },
    async task(more = {}) {
      const opened = await knock.api('POST', '/v1/tasks', '/orchestrator/workflow', {
        type: 'refund',
        params: { order_id: 42 },
        purpose: 'refund order 42',
        agents: ['spiffe://dev.mayfly/agent/refunds'],
        ttl_seconds: 600,
        ...more,
      });
      if (opened.status !== 201) throw new Error(`no task: ${opened.status} ${opened.text}`);
      return opened.body.id;
    },
    api: (method, path, as, body, headers = {}) =>
      send(url + path, {
        method,
        headers: {
          ...(as !== undefined && { authorization: `Bearer ${knock.svid(as)}` }),
          ...(body !== undefined && { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      }),
    introspect: (token, as = '/tool/orders') =>
      knock.post('/oauth2/introspect', {
        token,
        client_assertion: knock.svid(as),
        client_assertion_type: JWT_SPIFFE,
      }),
    async operator(subject, groups = ['mayfly-operators']) {
      const maker = new ProofMaker();
      const form = {
        grant_type: EXCHANGE,
        subject_token: knock.person(subject, groups),
        subject_token_type: ID_TOKEN,
      };
      const { token: accessToken } = await knock.minted(form, { headers: { dpop: knock.proof(maker) } });
      return (method, path, body) =>
        knock.api(method, path, undefined, body, {
          authorization: `DPoP ${accessToken}`,
          dpop: knock.proof(maker, path.split('?', 1)[0], { htm: method, accessToken }),
        });
    },
    proof: (maker, path = '/oauth2/token', more = {}) =>
      maker.prove({
        htm: 'POST',
        htu: url + path,
        iat: Math.floor(parts.clock.now() / 1000),
        jti: randomUUID(),
        ...more,
      }),
  };
  return knock;
}

function encode(form: Form): string {
  const encoded = new URLSearchParams();
  for (const [name, value] of Object.entries(form)) {
    for (const one of value === undefined ? [] : [value].flat()) encoded.append(name, one);
  }
  return encoded.toString();
}

export function partOf(token: string, at: 0 | 1): Claims {
  return JSON.parse(Buffer.from(token.split('.')[at] ?? '', 'base64url').toString());
}

/** Two more agents that may read orders, so that work can be handed on twice. */
export function withColleagues(files: Record<string, string>): Record<string, string> {
  const declare = (name: string) => `spiffe_id: spiffe://dev.mayfly/agent/${name}
owner: payments@dev.example
team: payments
risk_tier: 1
environment: production
tools: [orders.read]
review_by: 2031-06-30
`;
  return { ...files, 'agents/ledger.yaml': declare('ledger'), 'agents/clerk.yaml': declare('clerk') };
}

export const REFUNDS = 'spiffe://dev.mayfly/agent/refunds';
export const LEDGER = 'spiffe://dev.mayfly/agent/ledger';
export const CLERK = 'spiffe://dev.mayfly/agent/clerk';
