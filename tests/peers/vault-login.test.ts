import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rootCertificates } from 'node:tls';
import { exportSPKI, generateKeyPair, SignJWT } from 'jose';
import { Secret } from '../../src/core/secret.js';
import type { Assertion } from '../../src/plugins/backends/contract.js';
import { eventually } from './spire.js';
import {
  accessorOf,
  type Bao,
  backendOf,
  brokerToken,
  describeVault,
  issue,
  startBao,
  type TestBackend,
  tokenRole,
  within,
} from './vault-world.js';

const KV = { engine: 'kv', path: 'api', token_role: 'mayfly-kv' };

const BROKER = [
  'auth/token/create/mayfly-kv',
  'auth/token/revoke-accessor',
  'auth/token/lookup-accessor',
  'auth/token/renew-self',
  'auth/token/revoke-self',
]
  .map((path) => `path "${path}" { capabilities = ["update"] }`)
  .concat('path "auth/token/lookup-self" { capabilities = ["read"] }')
  .join('\n');

describeVault('the broker’s own token at a real OpenBao', () => {
  let bao: Bao;
  let dir: string;
  let assertion: (claims: Assertion) => Promise<Secret<string>>;
  const backends: TestBackend[] = [];

  const opened = (auth: Record<string, unknown>, more: Record<string, unknown> = {}) => {
    const backend = backendOf({ address: bao.address, auth, ...more }, { assertion });
    backends.push(backend);
    return backend;
  };

  const fileOf = (name: string, text: string) => {
    writeFileSync(join(dir, name), `${text}\n`, { mode: 0o600 });
    return join(dir, name);
  };

  /** An AppRole with these properties, and a file with a secret id of it. */
  const appRole = async (name: string, properties: Record<string, unknown> = {}) => {
    await bao.set(`auth/approle/role/${name}`, {
      token_policies: ['broker'],
      token_no_default_policy: true,
      token_ttl: '1h',
      ...properties,
    });
    const { body } = await bao.ask('GET', `auth/approle/role/${name}/role-id`);
    const secret = await bao.set(`auth/approle/role/${name}/secret-id`, {});
    return { method: 'approle', role_id: body.data.role_id, secret_id_file: fileOf(name, secret.body.data.secret_id) };
  };

  const works = async (backend: TestBackend) => {
    const { lease } = await issue(backend, KV);
    await backend.revoke(lease, within());
  };

  /** Tokens of the broker's own, by their accessors. */
  const brokers = async () => {
    const all: string[] = (await bao.ask('LIST', 'auth/token/accessors')).body.data.keys;
    const looked = await Promise.all(
      all.map((accessor) => bao.ask('POST', 'auth/token/lookup-accessor', { accessor })),
    );
    return looked.flatMap(({ body }) => (body?.data?.policies?.includes('broker') ? [String(body.data.accessor)] : []));
  };

  beforeAll(async () => {
    bao = await startBao();
    dir = mkdtempSync(join(tmpdir(), 'mayfly-vault-login-'));
    await bao.set('secret/data/api', { data: { key: 'of-the-test' } });
    await tokenRole(bao, 'mayfly-kv', 'path "secret/data/api" { capabilities = ["read"] }');
    await bao.policy('broker', BROKER);
    const { publicKey, privateKey } = await generateKeyPair('ES256');
    assertion = async ({ subject, audience, ttlMs, claims = {} }) =>
      new Secret(
        await new SignJWT({ ...claims })
          .setProtectedHeader({ alg: 'ES256' })
          .setIssuer('https://mayfly.example')
          .setSubject(subject)
          .setAudience(claims['kubernetes.io'] === undefined ? audience : [audience])
          .setIssuedAt()
          .setExpirationTime(Math.floor((Date.now() + ttlMs) / 1000))
          .sign(privateKey),
      );
    for (const type of ['jwt', 'approle', 'kubernetes']) await bao.set(`sys/auth/${type}`, { type });
    await bao.set('auth/jwt/config', {
      jwt_validation_pubkeys: [await exportSPKI(publicKey)],
      bound_issuer: 'https://mayfly.example',
    });
    await bao.set('auth/jwt/role/mayfly', {
      role_type: 'jwt',
      bound_audiences: ['https://bao.example'],
      bound_subject: 'mayfly',
      user_claim: 'sub',
      token_policies: ['broker'],
      token_no_default_policy: true,
      token_ttl: '1h',
    });
  }, 60_000);

  afterEach(async () => {
    await Promise.all(backends.splice(0).map((backend) => backend.close()));
  });

  afterAll(() => {
    bao?.close();
    rmSync(dir, { recursive: true, force: true });
  });

  it('comes by a JWT that the broker signs for it', async () => {
    await works(opened({ method: 'jwt', role: 'mayfly', audience: 'https://bao.example' }));
  });

  it('comes by a JWT in a file, such as an SVID kept fresh there, read at each login', async () => {
    const file = fileOf(
      'svid',
      (await assertion({ subject: 'mayfly', audience: 'https://bao.example', ttlMs: 60_000 })).expose(),
    );
    const backend = opened({ method: 'jwt', role: 'mayfly', token_file: file });
    await works(backend);
    for (const accessor of await brokers()) await bao.set('auth/token/revoke-accessor', { accessor });
    fileOf('svid', 'nothing');
    await expect(issue(backend, KV)).rejects.toMatchObject({ name: 'BackendProblem' });
    fileOf('svid', (await assertion({ subject: 'mayfly', audience: 'https://bao.example', ttlMs: 60_000 })).expose());
    await works(backend);
  });

  it.each([
    ['another audience', { audience: 'https://elsewhere.example' }],
    ['another subject', { audience: 'https://bao.example', subject: 'somebody' }],
    ['a role that is not there', { audience: 'https://bao.example', role: 'nobody' }],
  ])('does not come by a JWT with %s, and nothing is issued', async (_, wrong) => {
    await expect(issue(opened({ method: 'jwt', role: 'mayfly', ...wrong }), KV)).rejects.toMatchObject({
      name: 'BackendProblem',
      message: expect.stringMatching(/^log in by jwt: status 40[03]/),
    });
  });

  it('comes by an AppRole', async () => {
    await works(opened(await appRole('simple')));
  });

  it('comes once for all who wait for it', async () => {
    const backend = opened(await appRole('single', { secret_id_num_uses: 1 }));
    await Promise.all(Array.from({ length: 20 }, () => works(backend)));
  });

  it.each([
    ['is not there', undefined],
    ['is empty', ''],
    ['is wrong', 'nothing'],
  ])('does not come by an AppRole whose file %s', async (_, text) => {
    const auth = await appRole('wrong');
    if (text === undefined) rmSync(auth.secret_id_file);
    else fileOf('wrong', text);
    const problem = await issue(opened(auth), KV).catch((error) => error);
    expect(problem).toMatchObject({ name: 'BackendProblem' });
    expect(problem.message).not.toContain(dir);
  });

  it('comes by a Kubernetes service account, which the OpenBao asks its cluster about (a stand-in for the cluster)', async () => {
    const reviews: string[] = [];
    const cluster: Server = createServer((request, response) => {
      let body = '';
      request.on('data', (chunk) => {
        body += chunk;
      });
      request.on('end', () => {
        const { token } = JSON.parse(body).spec;
        reviews.push(token);
        const user = {
          username: 'system:serviceaccount:mayfly:broker',
          uid: 'one',
          groups: ['system:serviceaccounts', 'system:serviceaccounts:mayfly'],
        };
        response.setHeader('content-type', 'application/json');
        response.end(
          JSON.stringify({
            kind: 'TokenReview',
            apiVersion: 'authentication.k8s.io/v1',
            status: { authenticated: true, user, audiences: ['x'] },
          }),
        );
      });
    });
    await new Promise<void>((resolve) => cluster.listen(0, '127.0.0.1', resolve));
    try {
      const { port } = cluster.address() as { port: number };
      await bao.set('auth/kubernetes/config', {
        kubernetes_host: `http://127.0.0.1:${port}`,
        token_reviewer_jwt: (await assertion({ subject: 'reviewer', audience: 'x', ttlMs: 60_000 })).expose(),
        disable_local_ca_jwt: true,
        // Plain http here, but it wants one.
        kubernetes_ca_cert: rootCertificates[0],
      });
      await bao.set('auth/kubernetes/role/mayfly', {
        bound_service_account_names: ['broker'],
        bound_service_account_namespaces: ['mayfly'],
        token_policies: ['broker'],
        token_ttl: '1h',
      });
      // As a cluster writes into a projected token.
      const serviceaccount = { name: 'broker', uid: 'one' };
      const claims = { 'kubernetes.io': { namespace: 'mayfly', serviceaccount } };
      const account = { subject: 'system:serviceaccount:mayfly:broker', audience: 'x', ttlMs: 60_000, claims };
      const jwt = (await assertion(account)).expose();
      await works(opened({ method: 'kubernetes', role: 'mayfly', token_file: fileOf('sa', jwt) }));
      expect(reviews).toEqual([jwt]);
    } finally {
      cluster.closeAllConnections();
      cluster.close();
    }
  });

  it('is renewed: it outlives its first life without another login', async () => {
    const backend = opened(await appRole('renewed', { token_ttl: '3s', token_max_ttl: '1h', secret_id_num_uses: 1 }));
    const startMs = Date.now();
    await works(backend);
    await eventually(async () => {
      await works(backend);
      if (Date.now() - startMs < 7_000) throw new Error('not long enough yet');
    });
    expect(backend.events).toEqual([]);
  }, 30_000);

  it('is got anew when it can be renewed no more', async () => {
    const backend = opened(await appRole('short', { token_ttl: '2s', token_max_ttl: '3s' }));
    const startMs = Date.now();
    await works(backend);
    await eventually(async () => {
      await works(backend);
      if (Date.now() - startMs < 7_000) throw new Error('not long enough yet');
    });
    expect(backend.events).toEqual([]);
  }, 30_000);

  it('rings at a third of its life left when nothing helps, closes issuing at its end, and opens it again by itself', async () => {
    const auth = await appRole('dying', { token_ttl: '3s', token_max_ttl: '3s' });
    const backend = opened(auth);
    const { lease } = await issue(backend, KV);
    rmSync(auth.secret_id_file);
    await eventually(async () => {
      if (backend.events.length === 0) throw new Error('it has not rung');
    });
    expect(backend.events[0]).toMatchObject({
      event: 'backend.login_ending',
      level: 'error',
      backend: 'vault',
      leftMs: expect.any(Number),
      problem: expect.stringContaining('cannot be read'),
    });
    expect(backend.events[0]?.['leftMs']).toBeLessThanOrEqual(1_000);
    expect(backend.events[0]?.['leftMs']).toBeGreaterThan(0);
    await eventually(async () => {
      const problem = await works(backend).catch((error) => error);
      if (problem === undefined) throw new Error('still issuing');
      expect(problem).toMatchObject({ name: 'BackendProblem', kind: 'misconfigured', isSure: true });
    });
    // What had been issued has a token of its own.
    const { status } = await bao.ask('POST', 'auth/token/lookup-accessor', { accessor: accessorOf(lease) });
    expect(status).toBe(200);
    const { body } = await bao.set('auth/approle/role/dying/secret-id', {});
    fileOf('dying', body.data.secret_id);
    await works(backend);
  }, 30_000);

  it('is got anew at once when somebody revoked it', async () => {
    const backend = opened(await appRole('revoked'));
    await works(backend);
    for (const accessor of await brokers()) await bao.set('auth/token/revoke-accessor', { accessor });
    await works(backend);
  });

  it('is not got anew for a refusal that is not about it', async () => {
    const backend = opened(await appRole('refused', { secret_id_num_uses: 1 }));
    await works(backend);
    await expect(issue(backend, { ...KV, token_role: 'mayfly-nobody' })).rejects.toMatchObject({ kind: 'forbidden' });
    await works(backend);
  });

  it('is given back at the end, and what was issued lives on', async () => {
    const before = await brokers();
    const backend = opened(await appRole('given-back'));
    const { lease } = await issue(backend, KV);
    expect((await brokers()).length).toBe(before.length + 1);
    await backend.close();
    expect(await brokers()).toEqual(before);
    expect((await bao.ask('POST', 'auth/token/lookup-accessor', { accessor: accessorOf(lease) })).status).toBe(200);
  });

  it('of a file is not given back: it is somebody else’s', async () => {
    const { file, accessor } = await brokerToken(bao, ['broker']);
    const backend = opened({ method: 'token', token_file: file });
    await works(backend);
    await backend.close();
    expect((await bao.ask('POST', 'auth/token/lookup-accessor', { accessor })).status).toBe(200);
  });

  it('does not help while the OpenBao is sealed: that is said, and it goes on when it is unsealed', async () => {
    const backend = opened(await appRole('sealed'));
    const { lease } = await issue(backend, KV);
    await bao.seal();
    try {
      await expect(issue(backend, KV)).rejects.toMatchObject({ kind: 'sealed', isSure: true });
      await expect(backend.revoke(lease, within())).rejects.toMatchObject({ kind: 'sealed' });
      await expect(
        issue(opened({ method: 'jwt', role: 'mayfly', audience: 'https://bao.example' }), KV),
      ).rejects.toMatchObject({ kind: 'sealed' });
    } finally {
      await bao.unseal();
    }
    await backend.revoke(lease, within());
    await works(backend);
  });
});
