import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../../src/main/dev/free-port.js';
import { eventually } from './spire.js';
import { BAO, type BaoRoot, rootOf } from './vault-world.js';

/** A real OpenBao that keeps what it has on disk: killed and started again it has the same tokens and leases. */
export interface DurableBao extends BaoRoot {
  address: string;
  port: number;
  /** Its folder, removed at the end. */
  dir: string;
  seal(): Promise<void>;
  unseal(): Promise<void>;
  /** kill -9. */
  kill(): Promise<void>;
  /** Starts it again where it was, and unseals it. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

export async function startDurableBao(): Promise<DurableBao> {
  const dir = mkdtempSync(join(tmpdir(), 'mayfly-bao-'));
  const [port, clusterPort] = [await freePort(), await freePort()];
  const address = `http://127.0.0.1:${port}`;
  const config = join(dir, 'bao.json');
  writeFileSync(
    config,
    JSON.stringify({
      storage: { raft: { path: dir, node_id: 'one', performance_multiplier: '1' } },
      listener: {
        tcp: { address: `127.0.0.1:${port}`, cluster_address: `127.0.0.1:${clusterPort}`, tls_disable: true },
      },
      api_addr: address,
      cluster_addr: `http://127.0.0.1:${clusterPort}`,
    }),
  );
  let rootToken = '';
  let key = '';
  let bao: ChildProcess | undefined;
  const root = rootOf(address, () => rootToken);

  const isAlive = () => bao?.exitCode === null && bao.signalCode === null;
  const start = async () => {
    if (isAlive()) throw new Error('it was not killed');
    bao = spawn(BAO, ['server', `-config=${config}`], { stdio: 'ignore' });
    await eventually(async () => void (await root.ask('GET', 'sys/health')));
  };
  const unseal = async () => {
    await root.set('sys/unseal', { key });
    await eventually(async () => {
      if ((await root.ask('GET', 'sys/health')).status !== 200) throw new Error('not up yet');
    });
  };
  const kill = async () => {
    if (!bao || !isAlive()) return;
    const gone = once(bao, 'exit');
    bao.kill('SIGKILL');
    await gone;
  };

  await start();
  const { body } = await root.set('sys/init', { secret_shares: 1, secret_threshold: 1 });
  rootToken = body.root_token;
  [key] = body.keys_base64;
  await unseal();
  return {
    ...root,
    address,
    port,
    dir,
    seal: async () => void (await root.set('sys/seal', {})),
    unseal,
    kill,
    restart: async () => {
      await start();
      await unseal();
    },
    close: async () => {
      await kill();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
