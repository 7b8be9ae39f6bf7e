import { z } from 'zod';
import { configSchema } from './config.js';

/** What helm/mayfly sets itself from its other values. */
const OWN = ['data_dir', 'root_key_file', 'listen', 'mtls', 'ops', 'bundle'] as const;

const FOLDERS = ['agents', 'orchestrators', 'tasks', 'resources', 'secrets', 'policies'];

const name = z.string().max(253);
const map = z.record(z.string(), z.unknown());
const words = z.record(z.string(), z.string());
const peers = z.array(map).describe('Peers as a NetworkPolicy has them; empty: anywhere.');
const port = z.int().min(1).max(65_535);
const ports = z.array(port).min(1);

const egress = z.strictObject({ enabled: z.boolean(), ports, to: peers });

const workload = {
  replicaCount: z.int().min(0).max(1_000),
  autoscaling: z.strictObject({
    enabled: z.boolean(),
    minReplicas: z.int().min(1),
    maxReplicas: z.int().min(1),
    targetCPUUtilizationPercentage: z.int().min(1).max(100),
  }),
  pdb: z.strictObject({ enabled: z.boolean(), maxUnavailable: z.union([z.int().min(0), z.string().regex(/^\d+%$/)]) }),
  resources: map,
  podAnnotations: words,
  podLabels: words,
  nodeSelector: words,
  tolerations: z.array(map),
  affinity: map,
  topologySpreadConstraints: z.array(map),
  priorityClassName: name,
  extraEnv: z.array(map),
  extraVolumes: z.array(map),
  extraVolumeMounts: z.array(map),
};

const values = (config: z.ZodType) =>
  z.strictObject({
    nameOverride: name,
    fullnameOverride: name,
    commonLabels: words,
    image: z.strictObject({
      repository: z.string(),
      tag: z.string(),
      digest: z.string().regex(/^(sha256:[0-9a-f]{64})?$/),
      pullPolicy: z.enum(['Always', 'IfNotPresent', 'Never']),
    }),
    imagePullSecrets: z.array(z.strictObject({ name })),
    config,
    bundle: z.strictObject({
      configMaps: z.strictObject(
        Object.fromEntries(FOLDERS.map((folder) => [folder, name.min(1).optional()])) as Record<string, z.ZodType>,
      ),
      files: words,
    }),
    rootKey: z.strictObject({ existingSecret: name, key: name.min(1) }),
    redis: z.strictObject({
      url: z.string().regex(/^((redis|rediss|redis\+sentinel):\/\/.+)?$/),
      existingSecret: name,
      key: name.min(1),
      cluster: z.boolean(),
      caConfigMap: name,
      caKey: name.min(1),
    }),
    secretFiles: z.record(
      z.string().regex(/^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$/),
      z.strictObject({ existingSecret: name.min(1) }),
    ),
    vault: z.strictObject({
      serviceAccountToken: z.boolean(),
      audience: z.string().min(1),
      caConfigMap: name,
      caKey: name.min(1),
    }),
    spiffe: z.strictObject({ enabled: z.boolean(), csiDriver: name.min(1), socket: name.min(1) }),
    serviceAccount: z.strictObject({ create: z.boolean(), name, annotations: words }),
    service: z.strictObject({
      type: z.enum(['ClusterIP', 'NodePort', 'LoadBalancer']),
      port,
      annotations: words,
    }),
    tls: z.strictObject({ existingSecret: name }),
    mtls: z.strictObject({ enabled: z.boolean(), port, existingSecret: name, issuer: z.string() }),
    ingress: z.strictObject({
      enabled: z.boolean(),
      className: name,
      annotations: words,
      hosts: z.array(z.string().min(1)),
      tls: z.array(map),
    }),
    httpRoute: z.strictObject({
      enabled: z.boolean(),
      annotations: words,
      parentRefs: z.array(map),
      hostnames: z.array(z.string().min(1)),
    }),
    ops: z.strictObject({ port }),
    drain: z.strictObject({
      leavingSeconds: z.int().min(0).max(60),
      terminationGracePeriodSeconds: z.int().min(15).max(3_600),
    }),
    api: z.strictObject(workload),
    worker: z.strictObject({
      ...workload,
      persistence: z.strictObject({
        enabled: z.boolean(),
        storageClass: name,
        size: z.string().regex(/^\d+(\.\d+)?[KMGT]i?$/),
      }),
    }),
    podSecurityContext: map,
    securityContext: map,
    networkPolicy: z.strictObject({
      enabled: z.boolean(),
      clients: peers,
      monitoring: peers,
      egress: z.strictObject({
        dns: z.strictObject({ enabled: z.boolean(), to: peers }),
        redis: z.strictObject({ ports, to: peers }),
        vault: egress,
        postgres: egress,
        https: egress,
        extra: z.array(map),
      }),
    }),
    metrics: z.strictObject({
      serviceMonitor: z.strictObject({ enabled: z.boolean(), interval: z.string().regex(/^\d+[smh]$/), labels: words }),
      rules: z.strictObject({ enabled: z.boolean(), labels: words, runbookBaseUrl: z.string() }),
    }),
    global: map.optional(),
  });

/**
 * helm/mayfly/values.schema.json: helm holds the values against it, the configuration's part included, so that a misspelt setting is refused before
 * anything is installed. `issuer` and `identity` may be missing here: the chart itself then says what to write.
 */
export function chartSchema(): string {
  const draft = { target: 'draft-7', io: 'input', unrepresentable: 'any' } as const;
  const config = z.toJSONSchema(configSchema, draft) as { properties: Record<string, unknown>; required?: string[] };
  for (const own of OWN) delete config.properties[own];
  const redis = config.properties['redis'] as { properties: Record<string, unknown>; required?: string[] };
  config.properties['redis'] = { ...redis, properties: { key_prefix: redis.properties['key_prefix'] } };
  const schema = z.toJSONSchema(values(z.unknown()), draft) as {
    properties: Record<string, unknown>;
    required?: string[];
  };
  const { $schema: _, required: __, ...inner } = config as typeof config & { $schema?: string };
  schema.properties['config'] = inner;
  return `${JSON.stringify(schema, null, 2)}\n`;
}
