import { generateKeyPairSync } from 'node:crypto';
import { jest } from '@jest/globals';
import { importJWK, jwtVerify } from 'jose';
import {
  brokerFromEnv,
  createVerifier,
  TokenRefusal,
  type Verifier,
  type VerifierOptions,
} from '../../../src/client/verifier.js';
import { FakeIssuer, type IssuerKey, makeKey, ProofMaker, signJws } from '../../fakes/issuer.js';

const AUDIENCE = 'https://orders.example';
const identity = { bearer: async () => 'svid' };

let warnings: string[];
let issuer: FakeIssuer;
let verifier: Verifier;
let elapsedMs: number;

async function verifierWith(options: Partial<VerifierOptions> = {}): Promise<Verifier> {
  await verifier?.close();
  verifier = createVerifier({
    issuer: issuer.url,
    audience: AUDIENCE,
    identity,
    clock: { now: () => issuer.nowMs },
    elapsedMs: () => elapsedMs,
    onWarning: (warning) => warnings.push(warning),
    ...options,
  });
  await verifier.ready();
  return verifier;
}

beforeEach(async () => {
  issuer = await new FakeIssuer().start();
  elapsedMs = 0;
  warnings = [];
  await verifierWith();
});

afterEach(async () => {
  await verifier.close();
  await issuer.stop();
});

async function refusal(attempt: Promise<unknown>): Promise<TokenRefusal> {
  const error = await attempt.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(TokenRefusal);
  return error as TokenRefusal;
}

const reasonOf = async (attempt: Promise<unknown>) => (await refusal(attempt)).reason;

describe('a good token', () => {
  it('says who calls, for which task, with which tools, until when', async () => {
    const claims = issuer.claims({ scope: 'orders.read orders.write' });
    expect(await verifier.verify(issuer.mint(claims))).toEqual({
      claims,
      agent: claims.client_id,
      taskId: claims.mayfly.path[0],
      tools: ['orders.read', 'orders.write'],
      expiresAtMs: claims.exp * 1_000,
      kid: 'key-1',
    });
  });

  it('is taken again and again, and at once without waiting', async () => {
    const token = issuer.mint();
    await verifier.verify(token);
    expect(verifier.verifyNow(token)).toEqual(await verifier.verify(token));
  });

  it('may be signed with RS256', async () => {
    issuer.keys = [makeKey('RS256')];
    await verifierWith();
    await expect(verifier.verify(issuer.mint())).resolves.toBeDefined();
  });

  it('names the innermost task of its path, not a lease', async () => {
    const claims = issuer.claims();
    const own = claims.mayfly.path[0]?.replace(/.$/, '0') as string;
    const token = issuer.mint({
      ...claims,
      mayfly: { ...claims.mayfly, path: [claims.mayfly.path[0], own, claims.jti] },
    });
    expect((await verifier.verify(token)).taskId).toBe(own);
  });
});

describe('a token that is not good', () => {
  it.each<[string, string, (key: IssuerKey) => string]>([
    ['another typ', 'header', (key) => signJws({ typ: 'JWT', alg: 'ES256', kid: key.kid }, issuer.claims(), key)],
    [
      'typ in capitals',
      'header',
      (key) => signJws({ typ: 'AT+JWT', alg: 'ES256', kid: key.kid }, issuer.claims(), key),
    ],
    [
      'typ with application/',
      'header',
      (key) => signJws({ typ: 'application/at+jwt', alg: 'ES256', kid: key.kid }, issuer.claims(), key),
    ],
    ['no typ', 'header', (key) => signJws({ alg: 'ES256', kid: key.kid }, issuer.claims(), key)],
    ['no kid', 'kid', (key) => signJws({ typ: 'at+jwt', alg: 'ES256' }, issuer.claims(), key)],
    ['a foreign header', 'header', (key) => issuer.mint(undefined, { key, header: { jku: 'https://evil.example' } })],
    ['alg none', 'algorithm', (key) => issuer.mint(undefined, { key, header: { alg: 'none' } })],
    ['another algorithm than its key', 'signature', (key) => issuer.mint(undefined, { key, header: { alg: 'RS256' } })],
    ['another key under a known kid', 'signature', (key) => issuer.mint(undefined, { key: makeKey('ES256', key.kid) })],
    ['another issuer', 'payload', () => issuer.mint(issuer.claims({ iss: 'https://other.example' }))],
    ['no lease id', 'payload', () => issuer.mint({ ...issuer.claims(), jti: 'x' })],
    ['two audiences', 'payload', () => issuer.mint({ ...issuer.claims(), aud: [AUDIENCE, 'https://b.example'] })],
    ['its one audience in a list', 'payload', () => issuer.mint({ ...issuer.claims(), aud: [AUDIENCE] })],
    ['another audience', 'audience', () => issuer.mint(issuer.claims({ aud: 'https://b.example' }))],
    ['its audience with a slash', 'audience', () => issuer.mint(issuer.claims({ aud: `${AUDIENCE}/` }))],
    ['another cell', 'cell', () => issuer.mint(issuer.claims({ mayfly: { cell: 'b' } }))],
    ['an end that has come', 'expired', () => issuer.mint(issuer.claims({ exp: Math.floor(issuer.nowMs / 1_000) }))],
    [
      'a life of more than 15 minutes',
      'times',
      () => issuer.mint(issuer.claims({ exp: Math.floor(issuer.nowMs / 1_000) + 901 })),
    ],
    [
      'an issue in the future',
      'times',
      () => issuer.mint(issuer.claims({ iat: Math.floor(issuer.nowMs / 1_000) + 31 })),
    ],
    [
      'an nbf in the future',
      'times',
      () => issuer.mint({ ...issuer.claims(), nbf: Math.floor(issuer.nowMs / 1_000) + 31 }),
    ],
    ['an end that is no integer', 'payload', () => issuer.mint({ ...issuer.claims(), exp: issuer.claims().exp + 0.5 })],
    ['an end as text', 'payload', () => issuer.mint({ ...issuer.claims(), exp: String(issuer.claims().exp) })],
    ['no end', 'payload', () => issuer.mint({ ...issuer.claims(), exp: undefined })],
    ['an actor of a wrong shape', 'payload', () => issuer.mint({ ...issuer.claims(), act: { sub: 5 } })],
    ['two confirmations', 'payload', () => issuer.mint({ ...issuer.claims(), cnf: { jkt: 'a', 'x5t#S256': 'b' } })],
    ['an unknown confirmation', 'payload', () => issuer.mint({ ...issuer.claims(), cnf: { kid: 'a' } })],
    ['padding', 'spelling', () => `${issuer.mint()}==`],
    ['a newline at its end', 'spelling', () => `${issuer.mint()}\n`],
    ['four segments', 'spelling', () => `${issuer.mint()}.x`],
    ['nothing in it', 'spelling', () => ''],
    ['9 KiB of it', 'size', () => issuer.mint({ ...issuer.claims(), pad: 'x'.repeat(9_000) })],
  ])('with %s is refused', async (_, reason, make) => {
    expect(await reasonOf(verifier.verify(make(issuer.keys[0] as IssuerKey)))).toBe(reason);
  });

  it('every other last character of the signature is refused: one spelling', async () => {
    const token = issuer.mint();
    const others = [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'].filter(
      (one) => !token.endsWith(one),
    );
    for (const last of others) {
      expect(() => verifier.verifyNow(token.slice(0, -1) + last)).toThrow(TokenRefusal);
    }
    expect(verifier.verifyNow(token)).toBeDefined();
  });

  it('what its caller hears does not tell the reasons apart', async () => {
    const other = await refusal(verifier.verify(issuer.mint(issuer.claims({ aud: 'https://b.example' }))));
    const garbage = await refusal(verifier.verify('a.b.c'));
    expect([other.code, other.message]).toEqual([garbage.code, garbage.message]);
  });

  it('a good one and jose agree about everything that jose takes', async () => {
    const key = issuer.keys[0] as IssuerKey;
    const token = issuer.mint();
    const { payload } = await jwtVerify(token, await importJWK(key.publicJwk, 'ES256'), {
      algorithms: ['ES256'],
      issuer: issuer.url,
      audience: AUDIENCE,
      typ: 'at+jwt',
      currentDate: new Date(issuer.nowMs),
      requiredClaims: ['exp', 'iat', 'jti', 'sub', 'client_id'],
      maxTokenAge: 900,
    });
    expect((await verifier.verify(token)).claims).toEqual(payload);
  });
});

describe('time', () => {
  it('a remembered token is refused the moment it ends', async () => {
    const token = issuer.mint();
    await verifier.verify(token);
    issuer.nowMs += 299_999;
    expect(verifier.verifyNow(token)).toBeDefined();
    issuer.nowMs += 1;
    expect(await reasonOf(verifier.verify(token))).toBe('expired');
  });

  it('a clock that is set back revives nothing', async () => {
    const token = issuer.mint();
    await verifier.verify(token);
    issuer.nowMs += 300_000;
    expect(await reasonOf(verifier.verify(token))).toBe('expired');
    issuer.nowMs -= 3_600_000;
    expect(await reasonOf(verifier.verify(token))).toBe('expired');
  });

  it('a clock that is set back does not stop time', async () => {
    const token = issuer.mint();
    await verifier.verify(token);
    issuer.nowMs -= 3_600_000;
    issuer.beat();
    elapsedMs += 300_000;
    issuer.beat();
    await issuer.until(() => verifier.status().feed.ageMs === 0);
    expect(await reasonOf(verifier.verify(token))).toBe('expired');
  });
});

describe('revocation', () => {
  it.each<[string, (token: { task: string; lease: string }) => object]>([
    ['its task ends', ({ task }) => ({ task })],
    ['its lease is revoked', ({ lease }) => ({ lease })],
    ['its audience is locked', () => ({ resource: AUDIENCE })],
    ['its signing key is tainted', () => ({ key: 'key-1' })],
    ['everything is cut off', () => ({ all: true })],
    ['an entry comes that nobody can evaluate', () => ({ planet: 'mars' })],
  ])('a token is refused once %s', async (_, match) => {
    const claims = issuer.claims();
    const token = issuer.mint(claims);
    await verifier.verify(token);
    const { pos } = issuer.revoke(match({ task: claims.mayfly.path[0] as string, lease: claims.jti }));
    issuer.beat();
    await issuer.until(() => issuer.acknowledged.includes(pos));
    expect((await refusal(verifier.verify(token))).code).toBe('token_refused');
  });

  it('a token minted after the entry is taken', async () => {
    issuer.revoke({ resource: AUDIENCE });
    issuer.beat();
    await expect(verifier.verify(issuer.mint())).resolves.toBeDefined();
  });

  it('a tainted key verifies nothing more, whatever a JWKS still lists', async () => {
    issuer.revoke({ key: 'key-1' });
    issuer.beat();
    await issuer.until(() => issuer.acknowledged.includes(issuer.head));
    expect(verifier.status().keys.kids).toEqual([]);
    expect(await reasonOf(verifier.verify(issuer.mint()))).toBe('kid');
  });

  it('a new epoch kills every token of the ones before', async () => {
    const token = issuer.mint();
    issuer.epoch++;
    issuer.revoke({ all: true });
    issuer.beat();
    await issuer.until(() => issuer.acknowledged.includes(issuer.head));
    expect(await reasonOf(verifier.verify(token))).toBe('revoked');
    await expect(verifier.verify(issuer.mint())).resolves.toBeDefined();
  });

  it('a watch fires once on revocation, and says so', async () => {
    const claims = issuer.claims();
    const task = await verifier.verify(issuer.mint(claims));
    const reasons: string[] = [];
    verifier.watch(task, ({ reason }) => reasons.push(reason));
    issuer.revoke({ tool: 'orders.write' });
    issuer.revoke({ lease: claims.jti });
    issuer.revoke({ task: claims.mayfly.path[0] as string });
    issuer.beat();
    await issuer.until(() => issuer.acknowledged.includes(issuer.head));
    expect(reasons).toEqual(['revoked']);
  });

  it('a watch that was ended stays silent', async () => {
    const claims = issuer.claims();
    const task = await verifier.verify(issuer.mint(claims));
    const reasons: string[] = [];
    verifier.watch(task, ({ reason }) => reasons.push(reason))();
    issuer.revoke({ lease: claims.jti });
    issuer.beat();
    await issuer.until(() => issuer.acknowledged.includes(issuer.head));
    expect(reasons).toEqual([]);
  });
});

describe('the feed and what it allows', () => {
  it('before the first complete snapshot everything is refused', async () => {
    issuer.sendsHeads = false;
    await verifier.close();
    verifier = createVerifier({
      issuer: issuer.url,
      audience: AUDIENCE,
      identity: { bearer: async () => 'svid' },
      clock: { now: () => issuer.nowMs },
    });
    await issuer.until(
      () => issuer.readers === 1 && issuer.seen.filter(({ path }) => path.endsWith('jwks.json')).length === 2,
    );
    expect(await refusal(verifier.verify(issuer.mint()))).toMatchObject({ code: 'unavailable', reason: 'not-ready' });
    issuer.beat();
    await verifier.ready();
    await expect(verifier.verify(issuer.mint())).resolves.toBeDefined();
  });

  it('silence is reported after 5 s and refuses after 10 s', async () => {
    const token = issuer.mint();
    elapsedMs = 5_001;
    expect(verifier.status()).toMatchObject({ stale: true, ready: true });
    await verifier.verify(token);
    elapsedMs = 10_001;
    expect(verifier.status().ready).toBe(false);
    expect(await refusal(verifier.verify(token))).toMatchObject({ code: 'unavailable', reason: 'stale' });
  });

  it('with until-expiry, tokens outlive the silence but not themselves', async () => {
    await verifierWith({ whenStale: 'until-expiry' });
    const token = issuer.mint();
    elapsedMs = 200_000;
    await expect(verifier.verify(token)).resolves.toBeDefined();
    issuer.nowMs += 300_000;
    expect(await reasonOf(verifier.verify(token))).toBe('expired');
  });

  it('a token ahead of the feed waits for it', async () => {
    const { pos } = issuer.revoke({ task: 'tsk_a_other' }, { silently: true });
    const verifying = verifier.verify(issuer.mint());
    issuer.send(`id: ${pos}\nevent: revoke\ndata: ${JSON.stringify({ pos, until: null, match: { task: 'x' } })}\n\n`);
    await expect(verifying).resolves.toBeDefined();
  });

  it('a token that stays ahead of the feed is refused', async () => {
    await verifierWith({ limits: { waitForFeedMs: 20 } });
    const token = issuer.mint(issuer.claims({ mayfly: { pos: `${issuer.epoch + 1}-1-1` } }));
    expect(await reasonOf(verifier.verify(token))).toBe('position-ahead');
    expect(() => verifier.verifyNow(token)).toThrow(TokenRefusal);
  });
});

describe('keys', () => {
  it('a key that was published meanwhile is fetched once, and its token taken', async () => {
    const next = makeKey('ES256', 'key-2');
    issuer.keys.push(next);
    elapsedMs = 5_000;
    await expect(verifier.verify(issuer.mint(undefined, { key: next }))).resolves.toMatchObject({ kid: 'key-2' });
  });

  it('made-up kids do not make the verifier ask each time', async () => {
    elapsedMs = 5_000;
    const asked = () => issuer.seen.filter(({ path }) => path.endsWith('jwks.json')).length;
    const before = asked();
    for (let at = 0; at < 20; at++) {
      await refusal(verifier.verify(issuer.mint(undefined, { key: makeKey('ES256', `made-up-${at}`) })));
    }
    expect(asked()).toBe(before + 1);
  });

  it('a key that left the JWKS verifies nothing more, also not what is remembered', async () => {
    const token = issuer.mint();
    await verifier.verify(token);
    const next = makeKey('ES256', 'key-2');
    issuer.keys = [next];
    elapsedMs = 5_000;
    await verifier.verify(issuer.mint(undefined, { key: next }));
    expect(await reasonOf(verifier.verify(token))).toBe('kid');
  });

  it('a JWKS that cannot be had changes nothing', async () => {
    const token = issuer.mint();
    issuer.jwksStatus = 500;
    elapsedMs = 5_000;
    await refusal(verifier.verify(issuer.mint(undefined, { key: makeKey('ES256', 'made-up') })));
    await expect(verifier.verify(token)).resolves.toBeDefined();
  });
});

describe('sender constraint', () => {
  const url = `${AUDIENCE}/orders/42`;
  let prover: ProofMaker;

  beforeEach(() => {
    prover = new ProofMaker();
  });

  function bound(): string {
    return issuer.mint(issuer.claims({ cnf: { jkt: prover.jkt } }));
  }

  function proof(accessToken: string, more: object = {}): string {
    return prover.prove({ htm: 'GET', htu: url, iat: Math.floor(issuer.nowMs / 1_000), accessToken, ...more });
  }

  it('a DPoP-bound token with its proof is taken', async () => {
    const token = bound();
    await expect(
      verifier.verify(token, { scheme: 'DPoP', dpop: proof(token), method: 'GET', url }),
    ).resolves.toBeDefined();
  });

  it('a proof is taken once', async () => {
    const token = bound();
    const presented = { scheme: 'DPoP' as const, dpop: proof(token), method: 'GET', url };
    await verifier.verify(token, presented);
    expect(await refusal(verifier.verify(token, presented))).toMatchObject({
      code: 'dpop_invalid',
      reason: 'dpop-replay',
    });
  });

  it('a DPoP-bound token without a proof, as Bearer, or with another key is refused', async () => {
    const token = bound();
    const stranger = new ProofMaker().prove({
      htm: 'GET',
      htu: url,
      iat: Math.floor(issuer.nowMs / 1_000),
      accessToken: token,
    });
    expect((await refusal(verifier.verify(token, { scheme: 'DPoP', method: 'GET', url }))).code).toBe('dpop_invalid');
    expect(await reasonOf(verifier.verify(token, { scheme: 'Bearer', dpop: proof(token), method: 'GET', url }))).toBe(
      'binding',
    );
    expect(await reasonOf(verifier.verify(token, { scheme: 'DPoP', dpop: stranger, method: 'GET', url }))).toBe(
      'binding',
    );
  });

  it('a proof made for another token, method or URL is refused', async () => {
    const token = bound();
    const other = bound();
    for (const dpop of [proof(other), proof(token, { htm: 'POST' }), proof(token, { htu: `${AUDIENCE}/orders/43` })]) {
      expect((await refusal(verifier.verify(token, { scheme: 'DPoP', dpop, method: 'GET', url }))).code).toBe(
        'dpop_invalid',
      );
    }
  });

  it('a token that is not bound is refused under the DPoP scheme', async () => {
    const token = issuer.mint();
    expect(await reasonOf(verifier.verify(token, { scheme: 'DPoP', dpop: proof(token), method: 'GET', url }))).toBe(
      'unbound',
    );
  });

  it('when nonces are demanded, a proof without one is told so', async () => {
    await verifierWith({ dpop: { nonce: { current: () => 'n1', accepts: (nonce) => nonce === 'n1' } } });
    const token = bound();
    const presented = { scheme: 'DPoP' as const, method: 'GET', url };
    expect((await refusal(verifier.verify(token, { ...presented, dpop: proof(token) }))).code).toBe(
      'dpop_nonce_required',
    );
    await expect(verifier.verify(token, { ...presented, dpop: proof(token, { nonce: 'n1' }) })).resolves.toBeDefined();
  });

  it('a certificate-bound token is refused without that certificate', async () => {
    const token = issuer.mint(issuer.claims({ cnf: { 'x5t#S256': 'A'.repeat(43) } }));
    expect(await reasonOf(verifier.verify(token))).toBe('binding');
    expect(await reasonOf(verifier.verify(token, { peerCertificate: Buffer.from('another') }))).toBe('binding');
  });
});

describe('tools and single calls', () => {
  it('a tool outside the scope is refused as insufficient', async () => {
    expect((await refusal(verifier.verify(issuer.mint(), { tool: 'orders.write' }))).code).toBe('scope_insufficient');
    expect(
      (await refusal(verifier.verify(issuer.mint(issuer.claims({ scope: '' })), { tool: 'orders.read' }))).code,
    ).toBe('scope_insufficient');
    await expect(verifier.verify(issuer.mint(), { tool: 'orders.read' })).resolves.toBeDefined();
  });

  const marked = () => issuer.mint(issuer.claims({ mayfly: { call: true } }));

  it('a token marked call is refused without a decision point, as the fault of the set-up that it is', async () => {
    expect(await refusal(verifier.verify(marked()))).toMatchObject({
      code: 'misconfigured',
      reason: 'decision-point-missing',
    });
  });

  it('whoever runs a tool without a decision point is warned of it, once, and only when a good token was kept out', async () => {
    await refusal(verifier.verify(issuer.mint(issuer.claims({ exp: 5, mayfly: { call: true } }))));
    expect(warnings).toEqual([]);
    await refusal(verifier.verify(marked()));
    await refusal(verifier.verify(marked()));
    expect(warnings).toEqual([expect.stringMatching(/no decisionPoint.*docs\/guides\/protect-a-tool\.md/)]);
  });

  it('a warning goes to standard error where nobody else listens, and a listener that throws changes no answer', async () => {
    const said = jest.spyOn(console, 'warn').mockImplementation(() => undefined);
    await verifier.close();
    verifier = createVerifier({ issuer: issuer.url, audience: AUDIENCE, identity, clock: { now: () => issuer.nowMs } });
    await verifier.ready();
    await refusal(verifier.verify(marked()));
    expect(said.mock.calls).toEqual([[expect.stringMatching(/^mayfly: .*decisionPoint/)]]);
    said.mockRestore();
    await verifierWith({
      onWarning: () => {
        throw new Error('the log is full');
      },
    });
    expect(await reasonOf(verifier.verify(marked()))).toBe('decision-point-missing');
  });

  it('the decision point is asked each time, with the arguments, and its no is a no', async () => {
    const asked: unknown[] = [];
    await verifierWith({
      decisionPoint: async ({ arguments: given }) => {
        asked.push(given);
        return Object(given).order === 42;
      },
    });
    const token = marked();
    await verifier.verify(token, { arguments: { order: 42 } });
    expect((await refusal(verifier.verify(token, { arguments: { order: 43 } }))).code).toBe('denied');
    expect(asked).toEqual([{ order: 42 }, { order: 43 }]);
    expect(() => verifier.verifyNow(token)).toThrow(TokenRefusal);
  });

  it('a decision point that fails is no yes', async () => {
    await verifierWith({ decisionPoint: () => Promise.reject(new Error('down')) });
    expect((await refusal(verifier.verify(marked()))).code).toBe('unavailable');
  });

  it('a token revoked while the decision was made is refused', async () => {
    const claims = issuer.claims({ mayfly: { call: true } });
    await verifierWith({
      decisionPoint: async () => {
        const { pos } = issuer.revoke({ lease: claims.jti });
        issuer.beat();
        await issuer.until(() => issuer.acknowledged.includes(pos));
        return true;
      },
    });
    expect(await reasonOf(verifier.verify(issuer.mint(claims)))).toBe('revoked');
  });
});

it('a verifier without its broker is not ready, and says why', async () => {
  await verifier.close();
  issuer.feedStatus = 403;
  verifier = createVerifier({ issuer: issuer.url, audience: AUDIENCE, identity, onWarning: () => undefined });
  expect(await refusal(verifier.ready(300))).toMatchObject({
    code: 'unavailable',
    detail: expect.stringContaining('403'),
  });
});

describe('whoever runs the tool', () => {
  /** A verifier that has no feed yet; resolves with its first warnings. */
  async function warned(options: Partial<VerifierOptions>, count = 1): Promise<string[]> {
    await verifier.close();
    return new Promise((resolve) => {
      verifier = createVerifier({
        issuer: issuer.url,
        audience: AUDIENCE,
        identity,
        onWarning: (warning) => {
          if (warnings.push(warning) === count) resolve(warnings);
        },
        ...options,
      });
    });
  }

  it('is told that the broker refuses to let it read the feed, in the broker’s words', async () => {
    issuer.on('GET /v1/feed', () => ({
      status: 403,
      body: { detail: 'The feed is not yours.', hint: 'Ask the owner.' },
    }));
    expect(await warned({})).toEqual([
      `${issuer.url}/v1/feed cannot be followed, and until it can be, tokens are refused with 503: the broker answered 403 to the feed's reader: The feed is not yours. Ask the owner.`,
    ]);
  });

  it('is told what to look at where the broker knows nobody by that identity', async () => {
    issuer.on('GET /v1/feed', () => ({ status: 401, body: { detail: 'The identity was not accepted.' } }));
    const [warning] = await warned({});
    expect(warning).toMatch(
      /answered 401 .*: The identity was not accepted\. Is the SVID alive, and of an owner .*\?$/,
    );
  });

  it('is told of an identity that cannot be read, by the variable that names it', async () => {
    const { identity: fromFile } = brokerFromEnv({ MAYFLY_ADDR: issuer.url, MAYFLY_JWT_SVID_FILE: '/nothing/is/here' });
    const [warning] = await warned({ identity: fromFile });
    expect(warning).toMatch(/MAYFLY_JWT_SVID_FILE: \/nothing\/is\/here cannot be read \(ENOENT\)\. Set/);
  });

  it('is told of a broker that is not there, or is none', async () => {
    const nobody = await warned({ issuer: 'http://127.0.0.1:1' }, 2);
    expect(nobody).toEqual([
      expect.stringMatching(/^http:\/\/127\.0\.0\.1:1\S+ cannot be .*: ECONNREFUSED$/),
      expect.stringMatching(/^http:\/\/127\.0\.0\.1:1\S+ cannot be .*: ECONNREFUSED$/),
    ]);
    warnings = [];
    issuer.feedStatus = 501;
    issuer.jwksStatus = 501;
    expect((await warned({}, 2)).sort()).toEqual([
      expect.stringContaining('jwks.json cannot be read'),
      expect.stringContaining("answered 501 to the feed's reader: nothing that a Mayfly says."),
    ]);
  });

  it('is told each thing once, and again when it was over in between', async () => {
    issuer.feedStatus = 403;
    await warned({ clock: { now: () => issuer.nowMs }, elapsedMs: () => elapsedMs });
    const attempts = () => issuer.seen.filter(({ path }) => path === '/v1/feed').length;
    const before = attempts();
    await issuer.until(() => attempts() > before + 1);
    expect(warnings).toHaveLength(1);
    issuer.feedStatus = 200;
    await verifier.ready();
    issuer.feedStatus = 403;
    issuer.cut();
    const after = attempts();
    await issuer.until(() => attempts() > after + 1);
    // The feed was there a moment ago: nobody has to know.
    expect(warnings).toHaveLength(1);
    elapsedMs += 5_001;
    const then = attempts();
    await issuer.until(() => attempts() > then + 1);
    expect(warnings).toEqual([warnings[0], warnings[0]]);
  });

  it('is told of an issuer that is not the broker’s own name, by a token of that broker and no other', async () => {
    const other = issuer.claims({ iss: 'https://other.example' });
    await refusal(verifier.verify(issuer.mint(other, { key: makeKey('ES256', 'key-1') })));
    expect(warnings).toEqual([]);
    await refusal(verifier.verify(issuer.mint(other)));
    expect(warnings).toEqual([expect.stringContaining(`its issuer is not ${issuer.url}`)]);
  });

  it.each([
    ['identity', { identity: undefined }],
    ['identity', { identity: {} }],
    ['identity', { identity: { person: async () => 'token' } }],
    ['issuer', { issuer: undefined }],
    ['audience', { audience: '' }],
  ])('is told at once that %s is missing', (field, wrong) => {
    const options = { issuer: issuer.url, audience: AUDIENCE, identity, ...wrong } as unknown as VerifierOptions;
    expect(() => createVerifier(options)).toThrow(
      expect.objectContaining({
        name: 'InvalidRequest',
        field,
        message: expect.stringMatching(new RegExp(`^${field}: `)),
      }),
    );
  });
});

it('nobody waits on for a verifier that was closed', async () => {
  await verifier.close();
  issuer.feedStatus = 503;
  verifier = createVerifier({ issuer: issuer.url, audience: AUDIENCE, identity, onWarning: () => undefined });
  const waiting = refusal(verifier.ready(3_600_000));
  await verifier.close();
  expect(await waiting).toMatchObject({ reason: 'not-ready', detail: 'the verifier was closed' });
});

it('keys that are not for task tokens are left out', async () => {
  const { publicKey } = generateKeyPairSync('ed25519');
  issuer.keys.push({
    ...makeKey(),
    publicJwk: { ...publicKey.export({ format: 'jwk' }), kid: 'ed', use: 'sig', alg: 'EdDSA' },
  });
  await verifierWith();
  expect(verifier.status().keys.kids).toEqual(['key-1']);
});
