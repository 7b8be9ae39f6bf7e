import { type ChildProcess, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import type { SecretData } from '../../../src/core/credential.js';
import { freePort } from '../../../src/main/dev/free-port.js';
import { oauthBackend } from '../../../src/plugins/backends/oauth.js';
import { type Installation, ISSUER, installation } from './deps.js';
import type { Harness, SecretCase, World } from './harness.js';

export const JWT_API = 'https://jwt.example';

/** npm's oidc-provider in a process of its own. */
export class OidcProvider {
  readonly issuer: string;
  readonly clientSecret = randomBytes(32).toString('base64url');
  readonly #child: ChildProcess;

  private constructor(port: number, jwks: object) {
    this.issuer = `http://127.0.0.1:${port}`;
    this.#child = fork(resolve('tests/conformance/backends/oidc-provider.mjs'), {
      env: {
        ...process.env,
        ISSUER: this.issuer,
        OUR_ISSUER: ISSUER,
        OUR_JWKS: JSON.stringify(jwks),
        CLIENT_SECRET: this.clientSecret,
      },
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
  }

  static async start({ jwks }: Installation): Promise<OidcProvider> {
    const provider = new OidcProvider(await freePort(), jwks);
    await once(provider.#child, 'message');
    return provider;
  }

  async tell(what: 'count' | 'hang' | 'refuse' | 'serve'): Promise<number> {
    const answered = once(this.#child, 'message');
    this.#child.send({ do: what });
    const [{ count }] = (await answered) as [{ count: number }];
    return count;
  }

  /** As an API behind it asks: by introspection, or for a JWT by nobody but the keys and the clock. */
  async accepts(token: string): Promise<boolean> {
    if (token.startsWith('eyJ')) {
      const keys = createRemoteJWKSet(new URL(`${this.issuer}/jwks`));
      const verified = jwtVerify(token, keys, { issuer: this.issuer, audience: JWT_API });
      return verified.then(
        () => true,
        () => false,
      );
    }
    const reply = await fetch(`${this.issuer}/token/introspection`, {
      method: 'POST',
      body: new URLSearchParams({ token, client_id: 'api', client_secret: this.clientSecret }),
    });
    return ((await reply.json()) as { active: boolean }).active;
  }

  async stop(): Promise<void> {
    const gone = once(this.#child, 'exit');
    this.#child.disconnect();
    await gone;
  }
}

const instant = (name: string, settings: Record<string, unknown>): SecretCase => ({
  name,
  settings,
  promised: 'instant',
  secretFields: ['access_token'],
});

export const oauthHarness: Harness = {
  promises: ['instant', 'expiry-only'],
  abilities: [],
  canHang: true,
  async open(): Promise<World> {
    const ours = await installation();
    const provider = await OidcProvider.start(ours);
    const dir = mkdtempSync(join(tmpdir(), 'mayfly-oauth-'));
    const secretFile = join(dir, 'secret');
    writeFileSync(secretFile, `${provider.clientSecret}\n`, { mode: 0o600 });
    const config = oauthBackend.config.parse({
      kind: 'oauth',
      issuer: provider.issuer,
      client_id: 'mayfly',
      introspects: true,
      leeway_seconds: 0,
    });
    const make = (which?: string) => oauthBackend.create(config, ours.deps('upstream', which));
    return {
      backend: await make(),
      another: () => make(),
      stranger: () => make('theirs'),
      secrets: [
        instant('exchanged', { scope: 'read', resource: 'https://orders.example' }),
        instant('for-an-assertion', { grant: 'jwt-bearer', scope: 'read' }),
        instant('in-our-own-name', { grant: 'client-credentials', scope: 'read' }),
        {
          name: 'believed-by-all',
          settings: { tokens: 'jwt', resource: JWT_API, scope: 'short', token_ttl_seconds_max: 5 },
          promised: 'expiry-only',
          secretFields: ['access_token'],
        },
      ],
      badSettings: {
        'another grant': { grant: 'password' },
        'a scope with a quote': { scope: 'read" write' },
        'a scope with a line end': { scope: 'read\nwrite' },
        'scopes apart by two spaces': { scope: 'read  write' },
        'a resource that is a path': { resource: '/orders' },
        'a resource with a fragment': { resource: 'https://orders.example#x' },
        'a resource with a line end': { resource: 'https://orders.example/\r\n' },
        'an audience with a control': { audience: 'orders\u0000' },
        'a life without end': { token_ttl_seconds_max: 1e12 },
        'a life of nothing': { token_ttl_seconds_max: 0 },
        'tokens of another kind': { tokens: 'mac' },
      },
      works: (data: SecretData) => provider.accepts(String(data['access_token'])),
      count: () => provider.tell('count'),
      down: async (how) => void (await provider.tell(how === 'hangs' ? 'hang' : 'refuse')),
      up: async () => void (await provider.tell('serve')),
      ours: [provider.clientSecret],
      async close() {
        await provider.stop();
        rmSync(dir, { recursive: true, force: true });
      },
    };
  },
};
