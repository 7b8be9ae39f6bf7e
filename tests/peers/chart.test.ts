import { readdirSync } from 'node:fs';
import { parse } from 'yaml';
import { checkConfig } from '../../src/main/config.js';
import { haveHelm, invalid, lint, type Manifest, refusal, template } from './helm.js';

/** Each is laid over the least that has to be given. */
const VALUE_SETS = readdirSync('tests/peers/chart').map((file) => file.replace('.yaml', ''));
const over = (set: string) => (set === 'least' ? ['least'] : ['least', set]);

const WORKLOADS = ['Deployment', 'StatefulSet'];
const podOf = (manifest: Manifest) => (manifest.kind === 'Pod' ? manifest['spec'] : manifest['spec'].template.spec);
const pods = (all: readonly Manifest[]) => all.filter(({ kind }) => kind === 'Pod' || WORKLOADS.includes(kind));
const ofKind = (all: readonly Manifest[], kind: string) => all.filter((manifest) => manifest.kind === kind);

(haveHelm ? describe : describe.skip)('the chart', () => {
  it('is tried with at least eight sets of values', () => {
    expect(VALUE_SETS.length).toBeGreaterThanOrEqual(8);
    expect(VALUE_SETS).toContain('least');
  });

  describe.each(VALUE_SETS)('with the values %s', (set) => {
    let all: Manifest[];
    beforeAll(() => {
      all = template(over(set));
    });

    it('passes helm lint --strict', () => {
      expect(lint(over(set))).toMatchObject({ status: 0, said: expect.stringContaining('0 chart(s) failed') });
    });

    it("every manifest passes Kubernetes' own schemas, strictly", () => {
      expect(invalid(all)).toEqual([]);
    });

    it('its configuration is one that the broker takes', () => {
      const config = checkConfig(parse(ofKind(all, 'ConfigMap')[0]?.['data']['mayfly.yaml']));
      for (const workload of all.filter(({ kind }) => WORKLOADS.includes(kind))) {
        const [container] = podOf(workload).containers;
        const ports = Object.fromEntries(
          container.ports.map((port: { name: string; containerPort: number }) => [port.name, port.containerPort]),
        );
        expect(ports.ops).toBe(config.ops.port);
        if (workload.metadata.labels['app.kubernetes.io/component'] !== 'api') continue;
        expect([ports.http, ports.mtls]).toEqual([config.listen.port, config.mtls?.port]);
      }
    });

    it('every pod keeps to the restricted profile', () => {
      expect(pods(all).length).toBe(3);
      for (const pod of pods(all)) {
        const spec = podOf(pod);
        expect(spec.automountServiceAccountToken).toBe(false);
        expect(spec.securityContext).toMatchObject({
          runAsNonRoot: true,
          runAsUser: 65532,
          seccompProfile: { type: 'RuntimeDefault' },
        });
        expect(spec).not.toHaveProperty('hostNetwork');
        for (const container of spec.containers) {
          expect(container.securityContext).toEqual({
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ['ALL'] },
          });
          expect(container.resources).toMatchObject({
            requests: { cpu: expect.anything() },
            limits: { memory: expect.anything() },
          });
        }
        for (const volume of spec.volumes ?? []) {
          expect(volume).not.toHaveProperty('hostPath');
          if (volume.secret) expect(volume.secret.defaultMode).toBe(0o440);
        }
      }
    });

    it('every mount has its volume, every volume its mount, and none lies inside another', () => {
      for (const workload of all.filter(({ kind }) => WORKLOADS.includes(kind))) {
        const spec = podOf(workload);
        const claims = (workload['spec'].volumeClaimTemplates ?? []).map((claim: Manifest) => claim.metadata.name);
        const volumes = [...spec.volumes.map(({ name }: { name: string }) => name), ...claims].sort();
        const mounts: { name: string; mountPath: string }[] = spec.containers[0].volumeMounts;
        expect(mounts.map(({ name }) => name).sort()).toEqual(volumes);
        for (const { mountPath } of mounts) {
          expect(mounts.filter((other) => other.mountPath.startsWith(`${mountPath}/`))).toEqual([]);
        }
      }
    });

    it('services, budgets, scalers and policies are about pods that there are', () => {
      const templates = all.filter(({ kind }) => WORKLOADS.includes(kind));
      const matching = (selector: Record<string, string>) =>
        templates.filter((one) =>
          Object.entries(selector).every(([key, value]) => one['spec'].template.metadata.labels[key] === value),
        );
      for (const service of ofKind(all, 'Service')) {
        const found = matching(service['spec'].selector);
        expect(found.length).toBeGreaterThan(0);
        const ports = found.flatMap((one) => podOf(one).containers[0].ports.map(({ name }: { name: string }) => name));
        for (const { targetPort } of service['spec'].ports) expect(ports).toContain(targetPort);
      }
      for (const kind of ['PodDisruptionBudget', 'NetworkPolicy']) {
        for (const { spec } of ofKind(all, kind)) {
          expect(matching((spec.selector ?? spec.podSelector).matchLabels).length).toBeGreaterThan(0);
        }
      }
      for (const { spec } of ofKind(all, 'HorizontalPodAutoscaler')) {
        const target = templates.find(({ metadata }) => metadata.name === spec.scaleTargetRef.name);
        expect(target?.kind).toBe(spec.scaleTargetRef.kind);
        expect(target?.['spec']).not.toHaveProperty('replicas');
      }
      for (const one of templates) {
        expect(one['spec'].template.metadata.labels).toMatchObject(one['spec'].selector.matchLabels);
      }
    });

    it('holds no secret of its own, and gives a pod longer than it takes to leave', () => {
      expect(ofKind(all, 'Secret')).toEqual([]);
      const config = checkConfig(parse(ofKind(all, 'ConfigMap')[0]?.['data']['mayfly.yaml']));
      for (const one of all.filter(({ kind }) => WORKLOADS.includes(kind))) {
        expect(podOf(one).terminationGracePeriodSeconds).toBeGreaterThanOrEqual(config.ops.leaving_seconds + 15);
      }
    });
  });

  it('a changed configuration or bundle makes new pods', () => {
    const sums = (more: string[]) =>
      template(['least'], more)
        .filter(({ kind }) => WORKLOADS.includes(kind))
        .map((one) => JSON.stringify(one['spec'].template.metadata.annotations));
    const before = sums([]);
    expect(sums(['--set', 'config.tokens.ttl_seconds=120'])).not.toEqual(before);
    expect(sums(['--set', 'bundle.files.tasks/a\\.yaml=type: a'])).not.toEqual(before);
    expect(sums(['--set', 'api.replicaCount=5'])).toEqual(before);
  });

  it('nothing goes out but to what is named, and nothing comes in but to the ports there are', () => {
    const policyOf = (set: string) => ofKind(template(over(set)), 'NetworkPolicy')[0]?.['spec'];
    const least = policyOf('least');
    expect(least.policyTypes).toEqual(['Ingress', 'Egress']);
    const portsOf = (rules: { ports: { port: number | string }[] }[]) =>
      rules.map(({ ports }) => ports.map(({ port }) => port));
    expect(portsOf(least.egress)).toEqual([[53, 53], [6379]]);
    expect(portsOf(least.ingress)).toEqual([['http'], ['ops']]);
    expect(portsOf(policyOf('vault-spiffe').egress)).toEqual([[53, 53], [6379], [8200]]);
    expect(portsOf(policyOf('postgres').egress)).toEqual([[53, 53], [6379], [5432], [443], [636]]);
    expect(ofKind(template(over('without-volume')), 'NetworkPolicy')).toEqual([]);
  });

  it("a token for Vault has Vault's audience, and the API server gives none", () => {
    const all = template(over('vault-spiffe'));
    for (const pod of pods(all)) expect(podOf(pod).automountServiceAccountToken).toBe(false);
    const [api] = ofKind(all, 'Deployment');
    const volumes = podOf(api as Manifest).volumes;
    expect(volumes.find(({ name }: { name: string }) => name === 'vault').projected.sources).toEqual([
      { serviceAccountToken: { path: 'token', audience: 'vault', expirationSeconds: 3600 } },
    ]);
    expect(volumes.find(({ name }: { name: string }) => name === 'spiffe').csi).toEqual({
      driver: 'csi.spiffe.io',
      readOnly: true,
    });
  });

  it('an address in a Secret stays there: one line of a file for one Redis, several for a Cluster', () => {
    const redisOf = (set: string) => parse(ofKind(template(over(set)), 'ConfigMap')[0]?.['data']['mayfly.yaml']).redis;
    expect(redisOf('least')).toEqual({ url_file: '/run/mayfly/redis/url' });
    expect(redisOf('sentinel-tls')).toEqual({ url_file: '/run/mayfly/redis/address' });
    expect(redisOf('cluster')).toEqual({ cluster_file: '/run/mayfly/redis/nodes', key_prefix: 'agents' });
  });

  it.each([
    [
      'a setting that is none',
      ['config.tokns.ttl_seconds=3'],
      "at '/config': additional properties 'tokns' not allowed",
    ],
    ['one deeper down', ['config.tokens.ttl=3'], "at '/config/tokens': additional properties 'ttl' not allowed"],
    ['a value of the wrong kind', ['api.replicaCount=two'], "at '/api/replicaCount': got string, want integer"],
    ['a value out of bounds', ['config.tokens.ttl_seconds=86400'], "at '/config/tokens/ttl_seconds'"],
    ['what the chart sets itself', ['config.listen.port=80'], "additional properties 'listen' not allowed"],
    [
      'a store set past the chart',
      ['config.redis.url=redis://x'],
      "at '/config/redis': additional properties 'url' not allowed",
    ],
    ['an unknown kind of backend', ['config.backends.x.kind=ldap'], "at '/config/backends/x"],
    ['a word of no use', ['replicas=3'], "additional properties 'replicas' not allowed"],
    ['a digest that is none', ['image.digest=latest'], "at '/image/digest'"],
    ['no image', ['image.repository='], 'image.repository: where is the image?'],
    ['no root key', ['rootKey.existingSecret='], 'rootKey.existingSecret: make one first'],
    ['no issuer', ['config.issuer='], 'config.issuer: the https address'],
    ['nobody to believe', ['config.identity=null'], "at '/config/identity': got null"],
    ['no store', ['redis.existingSecret='], 'redis: give exactly one of'],
    ['two stores', ['redis.url=redis://redis:6379'], 'redis: give exactly one of'],
    [
      'a password in sight',
      ['redis.existingSecret=', 'redis.url=redis://me:geheim@redis:6379'],
      'a password is visible here',
    ],
    [
      'a Cluster without its nodes',
      ['redis.existingSecret=', 'redis.url=redis://a', 'redis.cluster=true'],
      'redis.cluster:',
    ],
    ['mTLS without a certificate', ['mtls.enabled=true'], 'mtls.existingSecret:'],
    ['http to the world', ['config.issuer=http://mayfly.example'], 'plain http pods need an https issuer'],
    ['no time to leave', ['drain.leavingSeconds=60'], 'terminationGracePeriodSeconds: at least'],
    ['a bundle file that is none', ['bundle.files.agents/\\.\\./x=text'], 'bundle.files: agents/../x'],
    ['a folder twice', ['bundle.files.agents/x\\.yaml=text'], 'bundle.configMaps has that folder already'],
    [
      'a folder that no bundle has',
      ['bundle.configMaps.secret=x'],
      "at '/bundle/configMaps': additional properties 'secret' not allowed",
    ],
  ])('%s is refused by name', (_, sets, words) => {
    const { status, said } = refusal(['least'], sets);
    expect(status).not.toBe(0);
    expect(said).toContain(words);
    expect(said).not.toContain('geheim');
  });

  it('the schemas that manifests are held against refuse what Kubernetes would', () => {
    const [api] = ofKind(template(['least']), 'Deployment') as [Manifest];
    expect(invalid([{ ...api, spec: { ...api['spec'], replicas: 'two' } }])).not.toEqual([]);
    expect(invalid([{ ...api, spec: { ...api['spec'], replica: 2 } }])).not.toEqual([]);
  });
});

if (!haveHelm) process.stderr.write('not run, helm is not here: scripts/peers.sh helm kubernetes-validate\n');
