import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const run = promisify(execFile);
const BIN = join(process.env['MAYFLY_PEERS_DIR'] ?? join(homedir(), '.cache/mayfly-peers'), 'bin');
const PROTO = join(import.meta.dirname, '../../src/plugins/identity/workload.proto');
const WAIT_MS = 60_000;

export const TRUST_DOMAIN = 'spire.example';

export interface X509Svid {
  spiffeId: string;
  /** Leaf first, DER one after another. */
  chain: Buffer;
  /** PKCS #8, DER. */
  key: Buffer;
}

/** A real SPIRE server and agent of one's own, in a folder that goes away with them. This very process is a registered workload. */
export interface Spire {
  /** The agent's Workload API. */
  socket: string;
  /** The bundle endpoint, when there is a certificate for it. */
  bundleUrl?: string;
  /** `spire-server bundle show`: the bundle as an operator would export it into a file. */
  exportedBundle(): Promise<string>;
  jwtSvid(audience: string): Promise<string>;
  x509Svid(): Promise<X509Svid>;
  /** `spire-server ARGS -output json`, parsed. */
  server(...args: string[]): Promise<Record<string, unknown>>;
  stop(): Promise<void>;
}

export const haveSpire = existsSync(join(BIN, 'spire-server')) && existsSync(join(BIN, 'spire-agent'));

/** PEM files for the bundle endpoint (profile `https_web`), good for 127.0.0.1. */
export interface EndpointCertificate {
  certPath: string;
  keyPath: string;
}

export async function startSpire(workloadPath: string, endpoint?: EndpointCertificate): Promise<Spire> {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-spire-'));
  const api = join(folder, 'server.sock');
  const socket = join(folder, 'agent.sock');
  const port = await freePort();
  const bundlePort = await freePort();
  const children: ChildProcess[] = [];
  const output: string[] = [];

  const launch = (binary: string, ...args: string[]) => {
    const child = spawn(join(BIN, binary), args, { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => output.push(String(chunk)));
    children.push(child);
  };
  const server = async (...args: string[]) => {
    const { stdout } = await run(join(BIN, 'spire-server'), [...args, '-socketPath', api, '-output', 'json']);
    return JSON.parse(stdout) as Record<string, unknown>;
  };
  const stop = async () => {
    for (const child of children.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGTERM');
      await ended;
    }
    rmSync(folder, { recursive: true, force: true });
  };

  try {
    for (const name of ['server', 'agent']) mkdirSync(join(folder, name));
    const federation = endpoint ? federationConfig(bundlePort, endpoint) : '';
    writeFileSync(join(folder, 'server.conf'), serverConfig(folder, port, api, federation));
    writeFileSync(join(folder, 'agent.conf'), agentConfig(folder, port, socket));
    launch('spire-server', 'run', '-config', join(folder, 'server.conf'));
    await eventually(() => server('bundle', 'show'), output);
    const node = `spiffe://${TRUST_DOMAIN}/node`;
    const { value } = await server('token', 'generate', '-spiffeID', node);
    await server(
      ...['entry', 'create', '-parentID', node, '-spiffeID', `spiffe://${TRUST_DOMAIN}${workloadPath}`],
      ...['-selector', `unix:uid:${process.getuid?.() ?? 0}`],
    );
    launch('spire-agent', 'run', '-config', join(folder, 'agent.conf'), '-joinToken', value as string);
    const workload = workloadApi(socket);
    await eventually(() => workload.x509Svid(), output);
    return {
      socket,
      ...(endpoint && { bundleUrl: `https://127.0.0.1:${bundlePort}` }),
      exportedBundle: async () =>
        (await run(join(BIN, 'spire-server'), ['bundle', 'show', '-format', 'spiffe', '-socketPath', api])).stdout,
      server,
      stop,
      ...workload,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Asks again until it is answered; the last output of SPIRE is in the error when it never is. */
export async function eventually<Answer>(ask: () => Promise<Answer>, output: string[] = []): Promise<Answer> {
  const deadlineMs = Date.now() + WAIT_MS;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (Date.now() > deadlineMs) throw new Error(`${String(error)}\n${output.slice(-20).join('')}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

function workloadApi(socket: string): Pick<Spire, 'jwtSvid' | 'x509Svid'> {
  const definition = grpc.loadPackageDefinition(loadSync(PROTO, { keepCase: true, bytes: Buffer }));
  const Client = definition['SpiffeWorkloadAPI'] as grpc.ServiceClientConstructor;
  const metadata = new grpc.Metadata();
  metadata.set('workload.spiffe.io', 'true');
  const open = () => new Client(`unix:${socket}`, grpc.credentials.createInsecure());
  return {
    jwtSvid: (audience) =>
      new Promise((resolve, reject) => {
        const client = open();
        client['FetchJWTSVID']?.(
          { audience: [audience] },
          metadata,
          (error: unknown, reply: { svids: { svid: string }[] }) => {
            client.close();
            const svid = reply?.svids[0]?.svid;
            if (svid === undefined) reject(error ?? new Error('no SVID'));
            else resolve(svid);
          },
        );
      }),
    x509Svid: () =>
      new Promise((resolve, reject) => {
        const client = open();
        const stream = client['FetchX509SVID']?.({}, metadata) as grpc.ClientReadableStream<{
          svids: { spiffe_id: string; x509_svid: Buffer; x509_svid_key: Buffer }[];
        }>;
        const end = () => {
          stream.cancel();
          client.close();
        };
        stream.on('error', (error) => {
          end();
          reject(error);
        });
        stream.once('data', ({ svids: [svid] }) => {
          end();
          if (svid) resolve({ spiffeId: svid.spiffe_id, chain: svid.x509_svid, key: svid.x509_svid_key });
          else reject(new Error('no SVID'));
        });
      }),
  };
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as { port: number };
      probe.close(() => resolve(port));
    });
  });
}

/** The hint is how often somebody who polls comes back: seconds here, minutes elsewhere. */
function federationConfig(port: number, { certPath, keyPath }: EndpointCertificate): string {
  return `  federation {
    bundle_endpoint {
      address = "127.0.0.1"
      port = ${port}
      refresh_hint = "1s"
      profile "https_web" {
        serving_cert_file { cert_file_path = "${certPath}" key_file_path = "${keyPath}" file_sync_interval = "1h" }
      }
    }
  }
`;
}

function serverConfig(folder: string, port: number, api: string, federation: string): string {
  return `server {
  bind_address = "127.0.0.1"
  bind_port = ${port}
  socket_path = "${api}"
  trust_domain = "${TRUST_DOMAIN}"
  data_dir = "${folder}/server"
  default_jwt_svid_ttl = "5m"
  default_x509_svid_ttl = "10m"
  ca_ttl = "24h"
${federation}}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "${folder}/server/data.sqlite3" } }
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
}
`;
}

function agentConfig(folder: string, port: number, socket: string): string {
  return `agent {
  server_address = "127.0.0.1"
  server_port = ${port}
  socket_path = "${socket}"
  trust_domain = "${TRUST_DOMAIN}"
  data_dir = "${folder}/agent"
  insecure_bootstrap = true
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data {} }
}
`;
}
