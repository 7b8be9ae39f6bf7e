import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { activateOwnBundle } from '../../../src/broker/activate-bundle.js';
import { ensureKeys } from '../../../src/broker/rotate-keys.js';
import { systemClock } from '../../../src/core/time.js';
import { routes } from '../../../src/edge/http/routes/index.js';
import { type HttpDoor, openHttpDoor } from '../../../src/edge/http/server.js';
import { activePolicies } from '../../../src/main/active-policies.js';
import { freePort } from '../../../src/main/dev/redis-process.js';
import { playStory } from '../../../src/main/dev/story.js';
import { openDevTrustDomain } from '../../../src/main/dev/trust-domain.js';
import { keyRing } from '../../../src/main/key-ring.js';
import { readBundle } from '../../../src/main/read-bundle.js';
import { identityConfig } from '../../../src/plugins/identity/config.js';
import { createIdentity } from '../../../src/plugins/identity/identity.js';
import { bundleFormat } from '../../../src/plugins/policy/bundle.js';
import { cedar } from '../../../src/plugins/policy/cedar.js';
import { localSigner } from '../../../src/plugins/signers/local.js';
import { fakeParts } from '../../fakes/parts.js';

describe('the story on the sample bundle', () => {
  const dir = mkdtempSync(join(tmpdir(), 'mayfly-story-'));
  let door: HttpDoor | undefined;
  let url: string;
  let trustDomain: Awaited<ReturnType<typeof openDevTrustDomain>>;
  let closeBundles: (() => Promise<void>) | undefined;

  afterAll(async () => {
    await door?.close(0);
    await closeBundles?.();
    rmSync(dir, { recursive: true, force: true });
  });

  it('an agent is identified, gets a token for its task, uses it, and is refused once the task completed', async () => {
    const port = await freePort();
    url = `http://127.0.0.1:${port}`;
    trustDomain = await openDevTrustDomain(dir);
    const { proof, bundles } = await createIdentity(
      identityConfig.parse({
        trust_domains: [{ name: trustDomain.name, source: { kind: 'file', path: trustDomain.bundlePath } }],
      }),
      { clock: systemClock, issuer: url },
    );
    closeBundles = () => bundles.close();
    const fakes = fakeParts({ clock: systemClock as never, settings: { issuer: url } });
    const policyEngine = cedar.create(cedar.config.parse({}), { clock: systemClock }) as Awaited<
      ReturnType<typeof cedar.create>
    >;
    const parts = {
      ...fakes,
      identity: proof,
      trustBundles: bundles,
      bundleFormat,
      policyEngine,
      policies: activePolicies({
        views: fakes.views,
        format: bundleFormat,
        engine: policyEngine,
        observe: fakes.observe,
      }),
      signer: localSigner(),
      keys: keyRing(fakes.views),
    };
    await ensureKeys(parts);
    await activateOwnBundle(parts, await readBundle('config'), { again: true });
    door = await openHttpDoor(parts, { plain: { host: '127.0.0.1', port }, routes, checkReplies: true });

    const lines: string[] = [];
    await playStory({ url, trustDomain, say: (line) => lines.push(line) });

    expect(lines.join('\n')).toMatch(
      /let it in: spiffe:\/\/dev\.mayfly\/agent\/refunds may orders\.read[\s\S]*refuses the same token: revoked/,
    );
  });

  it('a token is marked `call` when policies constrain its single calls, so that no local check alone lets it in', async () => {
    const svid = (path: string) => trustDomain.jwtSvid({ path, audience: url, ttlSeconds: 300 });
    const opened = await fetch(`${url}/v1/tasks`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${svid('/orchestrator/workflow')}`, 'Content-Type': 'application/json' },
      body: JSON.stringify({
        type: 'refund',
        params: { order_id: 42 },
        purpose: 'refund order 42',
        agents: ['spiffe://dev.mayfly/agent/refunds'],
      }),
    });
    const { id } = (await opened.json()) as { id: string };
    const marked = async (tool: string) => {
      const reply = await fetch(`${url}/oauth2/token`, {
        method: 'POST',
        body: new URLSearchParams({
          grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
          subject_token: svid('/agent/refunds'),
          subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
          resource: 'https://orders.example',
          scope: `task:${id} ${tool}`,
        }),
      });
      const { access_token: token } = (await reply.json()) as { access_token: string };
      return JSON.parse(Buffer.from(token.split('.')[1] as string, 'base64url').toString()).mayfly.call;
    };
    expect([await marked('orders.read'), await marked('orders.refund')]).toEqual([undefined, true]);
  });
});
