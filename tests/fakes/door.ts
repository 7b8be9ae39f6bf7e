import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { activateOwnBundle } from '../../src/broker/activate-bundle.js';
import type { BrokerSettings, Parts } from '../../src/broker/parts.js';
import { ensureKeys } from '../../src/broker/rotate-keys.js';
import { type Clock, systemClock } from '../../src/core/time.js';
import { routes } from '../../src/edge/http/routes/index.js';
import { openHttpDoor } from '../../src/edge/http/server.js';
import { activePolicies } from '../../src/main/active-policies.js';
import { freePort } from '../../src/main/dev/free-port.js';
import { type DevTrustDomain, openDevTrustDomain } from '../../src/main/dev/trust-domain.js';
import { keyRing } from '../../src/main/key-ring.js';
import { readBundle } from '../../src/main/read-bundle.js';
import { identityConfig } from '../../src/plugins/identity/config.js';
import { createIdentity } from '../../src/plugins/identity/identity.js';
import { bundleFormat } from '../../src/plugins/policy/bundle.js';
import { cedar } from '../../src/plugins/policy/cedar.js';
import { localSigner } from '../../src/plugins/signers/local.js';
import { type FakeParts, fakeParts } from './parts.js';

/** A whole broker behind real HTTP and mTLS: identity, policy and signatures are real, only the stores are in memory. */
export interface FakeDoor {
  /** The plain listener, and the issuer. */
  url: string;
  mtlsUrl: string;
  trustDomain: DevTrustDomain;
  parts: Parts & Pick<FakeParts, 'stores' | 'line' | 'events'>;
  close(): Promise<void>;
}

export interface FakeDoorOptions {
  clock?: Clock;
  settings?: Partial<BrokerSettings>;
  /** The sample bundle's files, changed. */
  bundle?: (files: Record<string, string>) => Record<string, string>;
}

export async function openFakeDoor(options: FakeDoorOptions = {}): Promise<FakeDoor> {
  const clock = options.clock ?? systemClock;
  const dir = mkdtempSync(join(tmpdir(), 'mayfly-door-'));
  const [port, mtlsPort] = [await freePort(), await freePort()];
  const url = `http://127.0.0.1:${port}`;
  const mtlsUrl = `https://127.0.0.1:${mtlsPort}`;
  const trustDomain = await openDevTrustDomain(dir, clock);
  const { certPem, keyPem } = await trustDomain.tlsServer(['127.0.0.1']);
  const { proof, bundles } = await createIdentity(
    identityConfig.parse({
      trust_domains: [{ name: trustDomain.name, source: { kind: 'file', path: trustDomain.bundlePath } }],
      oidc_issuers: [
        {
          kind: 'people',
          issuer: trustDomain.peopleIssuer.issuer,
          keys: { jwks_file: trustDomain.peopleIssuer.jwksPath },
          roles: { 'mayfly-operators': ['operator'], 'mayfly-auditors': 'auditor' },
        },
      ],
    }),
    { clock, issuer: url },
  );
  const fakes = fakeParts({
    clock: clock as never,
    settings: { issuer: url, mtlsIssuer: mtlsUrl, ...options.settings },
  });
  const policyEngine = await cedar.create(cedar.config.parse({}), { clock });
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
  const files = await readBundle('config');
  await activateOwnBundle(parts, options.bundle?.(files) ?? files, { again: true });
  const door = await openHttpDoor(parts, {
    plain: { host: '127.0.0.1', port },
    mtls: { host: '127.0.0.1', port: mtlsPort, tls: { cert: certPem, key: keyPem } },
    routes,
    checkReplies: true,
  });
  return {
    url,
    mtlsUrl,
    trustDomain,
    parts,
    async close() {
      await door.close(0);
      await bundles.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
