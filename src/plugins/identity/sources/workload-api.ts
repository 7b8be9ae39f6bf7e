import { fileURLToPath } from 'node:url';
import type grpc from '@grpc/grpc-js';
import type { PackageDefinition } from '@grpc/proto-loader';
import { z } from 'zod';
import { type BundleContent, readDerCertificates, readJwks } from '../bundle-document.js';
import type { BundleSource, SetTimer, SourceDeps, SourceListener } from './source.js';

interface BundlesReply {
  bundles: Record<string, Buffer>;
}

type Streams = grpc.Client & Record<'FetchJWTBundles' | 'FetchX509Bundles', StreamMethod>;
type StreamMethod = (request: object, metadata: grpc.Metadata) => grpc.ClientReadableStream<BundlesReply>;

const PROTO_FILE = fileURLToPath(new URL('../workload.proto', import.meta.url));
const MESSAGE_BYTES_MAX = 4 * 1024 * 1024;
const BACK_OFF_MS_FIRST = 1_000;
const BACK_OFF_MS_MAX = 30_000;
const METHODS = ['FetchJWTBundles', 'FetchX509Bundles'] as const;
type Method = (typeof METHODS)[number];
type Grpc = typeof grpc;

export const workloadApiSource = {
  kind: 'workload_api' as const,
  config: z.strictObject({
    kind: z.literal('workload_api').describe('The SPIFFE Workload API of an agent on this machine.'),
    socket: z
      .string()
      .regex(/^(unix:|tcp:\/\/|\/)/)
      .describe('`unix:///run/spire/agent.sock`, a path, or `tcp://127.0.0.1:PORT`.'),
  }),
  /** gRPC takes a tenth of a second to load, so only who uses it pays for it. */
  async create({ socket }: { socket: string }, trustDomain: string, { setTimer }: SourceDeps): Promise<BundleSource> {
    const { default: loaded } = await import('@grpc/grpc-js');
    const { loadSync } = await import('@grpc/proto-loader');
    const definition = loadSync(PROTO_FILE, { keepCase: true, defaults: true, bytes: Buffer });
    return followWorkloadApi({ grpc: loaded, definition, socket, trustDomain, setTimer });
  },
};

interface WorkloadApiOptions {
  grpc: Grpc;
  definition: PackageDefinition;
  socket: string;
  trustDomain: string;
  setTimer: SetTimer;
}

/**
 * Follows one trust domain's bundle over the SPIFFE Workload API: two streams, one for each kind of key, which the agent
 * writes to whenever something changed. A stream that ends is opened again, after 1 s and then twice as long each
 * time up to 30 s. A bundle is delivered once both halves are known; a domain that the agent stopped listing
 * has no keys any more (SPIFFE_Workload_API.md section 6: it was withdrawn), while a broken stream changes nothing.
 */
function followWorkloadApi({ grpc, definition, socket, trustDomain, setTimer }: WorkloadApiOptions): BundleSource {
  const client = connect(grpc, definition, socket);
  const metadata = new grpc.Metadata();
  metadata.set('workload.spiffe.io', 'true');
  const halves: Partial<Record<Method, BundleContent>> = {};
  const streams = new Map<Method, grpc.ClientReadableStream<BundlesReply>>();
  const cancels = new Map<Method, () => void>();
  const failures = new Map<Method, number>();
  let listener: SourceListener | undefined;
  let closed = false;
  let settled = () => {};
  const first = new Promise<void>((resolve) => {
    settled = resolve;
  });

  const deliver = () => {
    const { FetchJWTBundles: jwt, FetchX509Bundles: x509 } = halves;
    if (closed || !jwt || !x509) return;
    listener?.deliver({
      jwtKeys: jwt.jwtKeys,
      x509Authorities: x509.x509Authorities,
      ignored: [...jwt.ignored, ...x509.ignored],
    });
    settled();
  };

  const failed = (method: Method, problem: string) => {
    const stream = streams.get(method);
    if (closed || !stream) return;
    streams.delete(method);
    stream.cancel();
    const count = failures.get(method) ?? 0;
    failures.set(method, count + 1);
    listener?.fail(`${method}: ${problem}`);
    settled();
    const delayMs = Math.min(BACK_OFF_MS_FIRST * 2 ** Math.min(count, 10), BACK_OFF_MS_MAX);
    cancels.set(
      method,
      setTimer(() => open(method), delayMs),
    );
  };

  const open = (method: Method) => {
    if (closed) return;
    const stream = client[method]({}, metadata);
    streams.set(method, stream);
    stream.on('data', (reply: BundlesReply) => {
      if (streams.get(method) !== stream) return;
      try {
        halves[method] = read(method, reply, trustDomain);
        failures.set(method, 0);
        deliver();
      } catch (error) {
        failed(method, error instanceof Error ? error.message : 'a malformed bundle');
      }
    });
    // An error is always followed by an end; whichever comes first retires the stream.
    stream.on('error', (error: grpc.ServiceError) => {
      if (streams.get(method) === stream) failed(method, grpc.status[error.code] ?? 'failed');
    });
    stream.on('end', () => {
      if (streams.get(method) === stream) failed(method, 'the stream ended');
    });
  };

  return {
    description: `workload_api ${socket}`,
    start(given) {
      listener = given;
      for (const method of METHODS) open(method);
      return first;
    },
    async refresh() {},
    async close() {
      closed = true;
      for (const cancel of cancels.values()) cancel();
      for (const stream of streams.values()) stream.cancel();
      client.close();
      settled();
    },
  };
}

function read(method: Method, reply: BundlesReply, trustDomain: string): BundleContent {
  const id = `spiffe://${trustDomain}`;
  const bytes = Object.hasOwn(reply.bundles, id) ? reply.bundles[id] : undefined;
  if (bytes === undefined) return { jwtKeys: new Map(), x509Authorities: [], ignored: [] };
  // The stream says what the keys are for; agents leave `use` out of these documents.
  return method === 'FetchJWTBundles' ? readJwks(bytes.toString('utf8'), ['jwt-svid']) : readDerCertificates(bytes);
}

function connect(grpc: Grpc, definition: PackageDefinition, socket: string): Streams {
  const { SpiffeWorkloadAPI: Service } = grpc.loadPackageDefinition(definition);
  return new (Service as grpc.ServiceClientConstructor)(addressOf(socket), grpc.credentials.createInsecure(), {
    'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
    'grpc.initial_reconnect_backoff_ms': BACK_OFF_MS_FIRST,
    'grpc.max_reconnect_backoff_ms': BACK_OFF_MS_MAX,
    'grpc.enable_retries': 0,
  }) as unknown as Streams;
}

/** `unix:///run/spire/agent.sock` and `tcp://127.0.0.1:8081` (SPIFFE_Workload_Endpoint.md section 4) as gRPC spells them. */
function addressOf(socket: string): string {
  if (socket.startsWith('tcp://')) return socket.slice('tcp://'.length);
  return `unix:${socket.replace(/^unix:(\/\/)?/, '')}`;
}
