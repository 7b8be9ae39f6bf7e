// The peer that hands out tokens with a lease for the same SVIDs: OpenBao's JWT login (`scripts/peers.sh openbao` fetches it), storage in memory.
import { createPublicKey } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../../dist/main/dev/free-port.js';
import { ahead, load, median, until } from './world.mjs';

const BAO = join(process.env.MAYFLY_PEERS_DIR ?? join(homedir(), '.cache/mayfly-peers'), 'bin/bao');
const ROOT = 'root-of-the-bench';
const CALLERS = 16;

export async function openBaoRows(world, { seconds, rounds }) {
  if (!existsSync(BAO)) {
    process.stderr.write('bench: no OpenBao here, so no row against it (scripts/peers.sh openbao)\n');
    return [];
  }
  const { url, pid } = await startBao(world);
  const task = await world.openTask();
  const svid = () => world.svid('/agent/refunds');
  const known = world.mintForm(task, svid());
  const mint = { url: `${world.issuer}/oauth2/token`, pids: { node: world.pids.broker, redis: world.pids.redis } };
  const sources = {
    seen: { ...mint, form: undefined },
    fresh: { ...mint, form: () => world.mintForm(task, svid()) },
    bao: {
      url: `${url}/v1/auth/jwt/login`,
      pids: { node: pid },
      type: 'application/json',
      form: () => JSON.stringify({ role: 'agent', jwt: svid() }),
    },
  };
  const runs = { seen: [], fresh: [], bao: [] };
  const made = { seen: 0, fresh: 0, bao: 0 };
  for (let round = 0; round <= rounds; round++) {
    for (const [name, { form, url: to, ...how }] of Object.entries(sources)) {
      const forms = form ? ahead(made[name], form) : () => known;
      const run = await load(to, forms, { seconds, connections: CALLERS, ...how });
      made[name] = Math.ceil(run.perSecond * seconds * 1.3);
      // The first round warms everybody up.
      if (round > 0) runs[name].push(run);
    }
  }
  const rate = (name) => median(runs[name].map((run) => run.perSecond));
  const said = (name) =>
    `${Math.round(rate(name))}/s (CPU ${Math.round(median(runs[name].map((run) => run.cpuUs.node)))} µs)`;
  const row = (text, our, floor, aim) => ({
    row: text,
    ours: said(our),
    peer: said('bao'),
    ratio: rate(our) / rate('bao'),
    floor,
    aim,
    more: true,
  });
  return [
    row('mint, every SVID new, vs OpenBao JWT login, 16 callers', 'fresh', 0.8, 1.5),
    row('mint, seen before, vs OpenBao JWT login, 16 callers', 'seen', 0.8, 4),
  ];
}

/** It knows the keys of the trust domain, and takes the same SVIDs as the broker. */
async function startBao(world) {
  const address = `127.0.0.1:${await freePort()}`;
  const url = `http://${address}`;
  const words = [
    'server',
    '-dev',
    `-dev-root-token-id=${ROOT}`,
    `-dev-listen-address=${address}`,
    '-dev-no-store-token',
    '-log-level=error',
  ];
  const child = await world.launch(BAO, words, {}, () => until(async () => (await fetch(`${url}/v1/sys/health`)).ok));
  const configure = async (path, body) => {
    const reply = await fetch(`${url}/v1/${path}`, {
      method: 'POST',
      headers: { 'x-vault-token': ROOT },
      body: JSON.stringify(body),
    });
    if (!reply.ok) throw new Error(`${path}: ${await reply.text()}`);
  };
  const { keys } = JSON.parse(readFileSync(world.trustDomain.bundlePath, 'utf8'));
  const pems = keys
    .filter(({ use }) => use === 'jwt-svid')
    .map((key) => createPublicKey({ key, format: 'jwk' }).export({ type: 'spki', format: 'pem' }));
  await configure('sys/auth/jwt', { type: 'jwt' });
  await configure('auth/jwt/config', { jwt_validation_pubkeys: pems });
  await configure('auth/jwt/role/agent', {
    role_type: 'jwt',
    bound_audiences: [world.issuer],
    user_claim: 'sub',
    token_ttl: '5m',
  });
  return { url, pid: child.pid };
}
