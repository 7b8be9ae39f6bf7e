// The rows: each measures us and a peer or floor in the same run, and says a ratio.
import { createPublicKey, generateKeyPairSync, sign, verify } from 'node:crypto';
import { request } from 'node:http';
import { Redis } from 'ioredis';
import { createVerifier } from '../../dist/client/verifier.js';
import { systemClock } from '../../dist/core/time.js';
import { readBundle } from '../../dist/main/read-bundle.js';
import { bundleFormat } from '../../dist/plugins/policy/bundle.js';
import { cedar } from '../../dist/plugins/policy/cedar.js';
import { openStores } from '../../dist/state/open-stores.js';
import { ahead, load, median, ORDERS, openLoop, quantile, REFUNDS, until } from './world.mjs';

/** Requests a second of the open loop. */
const PER_SECOND = 300;

/**
 * Rounds are interleaved, so that whatever else the machine does hits both. What the load has to sign (the peer's assertions, new SVIDs) it
 * signs before the clock runs.
 */
export async function mintRows(world, { seconds, rounds }) {
  const task = await world.openTask();
  const known = world.mintForm(task, world.svid('/agent/refunds'));
  const peers = { redis: await world.peer(true), memory: await world.peer(false) };
  const { broker, redis, peerRedis } = world.pids;
  const ours = { url: `${world.issuer}/oauth2/token`, pids: { node: broker, redis } };
  const peerForm = (url) =>
    new URLSearchParams({
      grant_type: 'client_credentials',
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: world.assertion(url),
    }).toString();
  const sources = {
    seen: { ...ours, form: undefined },
    redis: {
      url: `${peers.redis.url}/token`,
      pids: { node: peers.redis.pid, redis: peerRedis },
      form: () => peerForm(peers.redis.url),
    },
    fresh: { ...ours, form: () => world.mintForm(task, world.svid('/agent/refunds')) },
    memory: {
      url: `${peers.memory.url}/token`,
      pids: { node: peers.memory.pid },
      form: () => peerForm(peers.memory.url),
    },
  };
  // One after the other within each round, before any of them is driven as hard as it goes.
  const tookMs = { seen: [], redis: [] };
  for (let round = 0; round <= rounds; round++) {
    for (const name of Object.keys(tookMs)) {
      const { url, form } = sources[name];
      const forms = form ? ahead(PER_SECOND * seconds, form) : () => known;
      const took = await openLoop(url, forms, { perSecond: PER_SECOND, seconds });
      if (round > 0) tookMs[name].push(...took);
    }
  }
  const [p99, peerP99] = [quantile(tookMs.seen, 0.99), quantile(tookMs.redis, 0.99)];
  const runs = { seen: [], fresh: [], redis: [], memory: [] };
  const made = { seen: 0, fresh: 0, redis: 0, memory: 0 };
  for (let round = 0; round <= rounds; round++) {
    for (const [name, { url, pids, form }] of Object.entries(sources)) {
      const forms = form ? ahead(made[name], form) : () => known;
      const run = await load(url, forms, { seconds, pids });
      made[name] = Math.ceil(run.perSecond * seconds * 1.3);
      // The first round warms everybody up.
      if (round > 0) runs[name].push(run);
    }
  }
  const rate = (name) => median(runs[name].map((run) => run.perSecond));
  const spent = (name, part) => Math.round(median(runs[name].map((run) => run.cpuUs[part] ?? 0)));
  const said = (name) =>
    `${Math.round(rate(name))}/s (CPU ${spent(name, 'node')} + ${spent(name, 'redis')} µs, load ${spent(name, 'load')})`;
  const row = (text, our, peer, floor, aim) => ({
    row: text,
    ours: said(our),
    peer: said(peer),
    ratio: rate(our) / rate(peer),
    floor,
    aim,
    more: true,
  });
  return [
    row('mint, seen before, vs oidc-provider with Redis', 'seen', 'redis', 3, 5),
    row('mint, seen before, vs oidc-provider in memory', 'seen', 'memory', 2, 4),
    row('mint, every SVID new, vs oidc-provider with Redis', 'fresh', 'redis', 0.9, 1.5),
    {
      row: `mint, p99 at ${PER_SECOND}/s open loop, vs oidc-provider with Redis`,
      ours: `${p99.toFixed(1)} ms (p50 ${quantile(tookMs.seen, 0.5).toFixed(1)} ms)`,
      peer: `${peerP99.toFixed(1)} ms (p50 ${quantile(tookMs.redis, 0.5).toFixed(1)} ms)`,
      ratio: p99 / peerP99,
      floor: 0.5,
      aim: 0.3,
      more: false,
    },
  ];
}

export async function verifyRows(world, { quick }) {
  const task = await world.openTask();
  const form = world.mintForm(task, world.svid('/agent/refunds'));
  const tokens = [];
  for (let at = 0; at < (quick ? 200 : 2_000); at++) {
    const reply = await fetch(`${world.issuer}/oauth2/token`, { method: 'POST', body: new URLSearchParams(form) });
    tokens.push((await reply.json()).access_token);
  }
  const verifier = createVerifier({
    issuer: world.issuer,
    audience: ORDERS,
    identity: { bearer: async () => world.svid('/tool/orders') },
  });
  await verifier.ready(10_000);
  await verifier.verify(tokens[0]);
  const { keys } = await (await fetch(`${world.issuer}/.well-known/jwks.json`)).json();
  const key = createPublicKey({ key: keys[0], format: 'jwk' });
  const raw = (token) => {
    const at = token.lastIndexOf('.');
    return verify(
      'sha256',
      Buffer.from(token.slice(0, at)),
      { key, dsaEncoding: 'ieee-p1363' },
      Buffer.from(token.slice(at + 1), 'base64url'),
    );
  };
  for (let at = 0; at < 500; at++) raw(tokens[at % tokens.length]);
  const rawUs = perCallUs(tokens.length, (at) => raw(tokens[at]));
  const coldUs = perCallUs(tokens.length - 1, (at) => verifier.verifyNow(tokens[at + 1]));
  const warmUs = perCallUs(20_000, () => verifier.verifyNow(tokens[1]));
  const eachUs = [];
  for (const token of tokens.slice(0, 200)) eachUs.push(perCallUs(1, () => verifier.verifyNow(token)));
  await verifier.close();
  const introspectUs = await introspections(world, tokens.slice(0, 200));
  const [verifyP50, introspectP50] = [median(eachUs), median(introspectUs)];
  return [
    {
      row: 'introspection over HTTP vs verify, p50',
      ours: `${verifyP50.toFixed(1)} µs`,
      peer: `${introspectP50.toFixed(0)} µs`,
      ratio: introspectP50 / verifyP50,
      floor: 4,
      aim: 7,
      more: true,
    },
    {
      row: 'verify, nothing remembered, vs raw ES256',
      ours: `${coldUs.toFixed(1)} µs`,
      peer: `${rawUs.toFixed(1)} µs`,
      ratio: coldUs / rawUs,
      floor: 3,
      aim: 1.5,
      more: false,
    },
    {
      row: 'verify, remembered token (µs)',
      ours: `${warmUs.toFixed(2)} µs`,
      peer: '',
      ratio: warmUs,
      floor: 10,
      aim: 2.5,
      more: false,
    },
  ];
}

/** What a tool pays that asks the broker about each token instead: one round trip after the other. */
async function introspections(world, tokens) {
  const assertion = world.svid('/tool/orders');
  const form = (token) =>
    new URLSearchParams({
      token,
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe',
      client_assertion: assertion,
    });
  const eachUs = [];
  for (const token of [...tokens.slice(0, 20), ...tokens]) {
    const from = performance.now();
    const reply = await fetch(`${world.issuer}/oauth2/introspect`, { method: 'POST', body: form(token) });
    const { active } = await reply.json();
    eachUs.push((performance.now() - from) * 1000);
    if (!active) throw new Error('a live token was introspected as dead');
  }
  return eachUs.slice(20);
}

export async function decisionRows() {
  const bundle = bundleFormat.parse(await readBundle('config'));
  const engine = await cedar.create(cedar.config.parse({}), { clock: systemClock });
  const policy = await engine.prepare(bundle);
  const question = (order) => ({
    principal: {
      type: 'Agent',
      id: REFUNDS,
      attributes: {
        spiffeId: REFUNDS,
        path: '/agent/refunds',
        trustDomain: 'dev.mayfly',
        owner: 'o',
        team: 't',
        riskTier: 2,
        environment: 'production',
        tools: ['orders.read'],
        labels: {},
        reviewOverdue: false,
        retired: false,
      },
    },
    action: 'mint',
    resource: {
      type: 'Tool',
      id: 'orders.read',
      attributes: { name: 'orders.read', api: ORDERS, sensitivity: 'confidential' },
    },
    context: {
      task: {
        id: `t${order}`,
        type: 'refund',
        params: { order_id: order },
        purpose: 'bench',
        risk: 'medium',
        tools: ['orders.read'],
        agents: [REFUNDS],
        generation: order,
        selfOpened: false,
        opener: 'o',
        depth: 1,
        context: {},
      },
      environment: 'production',
      dataSensitivity: 'confidential',
      audience: ORDERS,
      enforcement: 'feed',
      binding: 'none',
      proof: 'jwt-svid',
      ttlSecondsRequested: 300,
    },
  });
  const one = question(1);
  policy.decide(one);
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const signUs = perCallUs(5_000, () => sign('sha256', Buffer.from('floor'), privateKey));
  const knownUs = perCallUs(20_000, () => policy.decide(one));
  const newUs = perCallUs(2_000, (at) => policy.decide(question(at + 2)));
  return [
    {
      row: 'decision, seen before, vs one ES256 signature',
      ours: `${knownUs.toFixed(1)} µs`,
      peer: `${signUs.toFixed(1)} µs`,
      ratio: knownUs / signUs,
      floor: undefined,
      aim: undefined,
      more: false,
    },
    {
      row: 'decision, another task each time, vs the same',
      ours: `${newUs.toFixed(1)} µs`,
      peer: `${signUs.toFixed(1)} µs`,
      ratio: newUs / signUs,
      floor: undefined,
      aim: undefined,
      more: false,
    },
  ];
}

/** From the acknowledged end of a task to the entry at every one of so many feed clients. */
export async function feedRows(world, { quick }) {
  const rows = [];
  for (const [clients, floorMs, aimMs] of quick
    ? [[1, 5, 1]]
    : [
        [1, 5, 1],
        [100, 20, 5],
        [1_000, 100, 25],
      ]) {
    const readers = await Promise.all(Array.from({ length: clients }, () => feedReader(world)));
    const lateMs = [];
    for (let end = 0; end < (quick ? 10 : 40); end++) {
      const task = await world.openTask();
      await fetch(`${world.issuer}/oauth2/token`, {
        method: 'POST',
        body: new URLSearchParams(world.mintForm(task, world.svid('/agent/refunds'))),
      });
      const heard = Promise.all(readers.map((reader) => reader.heard(task)));
      await fetch(`${world.issuer}/v1/tasks/${task}/complete`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${world.svid('/orchestrator/workflow')}`,
          'content-type': 'application/json',
        },
        body: '{}',
      });
      const acknowledgedMs = performance.now();
      for (const atMs of await heard) lateMs.push(Math.max(0, atMs - acknowledgedMs));
    }
    for (const reader of readers) reader.close();
    const p99 = quantile(lateMs, 0.99);
    rows.push({
      row: `revocation after its acknowledgement, ${clients} clients, p99 (ms)`,
      ours: `${p99.toFixed(1)} ms`,
      peer: '',
      ratio: p99,
      floor: floorMs,
      aim: aimMs,
      more: false,
    });
  }
  return rows;
}

function feedReader(world) {
  return new Promise((resolve, reject) => {
    const waiting = new Map();
    let text = '';
    const sent = request(
      `${world.issuer}/v1/feed`,
      { headers: { authorization: `Bearer ${world.svid('/tool/orders')}`, accept: 'text/event-stream' } },
      (reply) => {
        if (reply.statusCode !== 200) return reject(new Error(`feed: ${reply.statusCode}`));
        resolve({
          heard: (task) => new Promise((done) => waiting.set(task, done)),
          close: () => sent.destroy(),
        });
        reply.on('data', (chunk) => {
          const atMs = performance.now();
          text = (text + chunk).slice(-8_192);
          for (const [task, done] of waiting) {
            if (!text.includes(task)) continue;
            waiting.delete(task);
            done(atMs);
          }
        });
        reply.on('error', () => undefined);
      },
    );
    sent.on('error', reject);
    sent.end();
  });
}

/** So few are only there to be compared with. */
const FEW = 1_000;

/** Many live leases, one revocation: time to effect, longest stall of another client while the records are moved, memory per lease. */
export async function bulkRows(world, { counts }) {
  const rows = [];
  const effects = [];
  const typicalMs = new Map();
  for (const count of counts) {
    const stores = await openStores({
      url: world.redis.url,
      cell: `b${effects.length}`,
      rootKey: new Uint8Array(32),
      clock: systemClock,
      observe: () => {},
      dataDir: `${world.dir}/bulk-${count}`,
      role: 'api',
      // Nobody moves the records of what is only there to be revoked.
      limits: { auditBacklogMsMax: Number.POSITIVE_INFINITY },
    });
    const redis = new Redis(world.redis.url);
    const memory = async () => Number(/used_memory:(\d+)/.exec(await redis.info('memory'))[1]);
    const nowMs = Date.now();
    const id = (kind, at) =>
      `${kind}_b${effects.length}_${'0'.repeat(10)}${at.toString().padStart(16, '0')}`.slice(
        0,
        4 + `b${effects.length}`.length + 1 + 26,
      );
    const audit = (type) => ({ id: id('dec', 1), atMs: nowMs, type, actor: {} });
    await stores.ledger.activateBundle({
      digest: 'sha256:bench',
      files: {},
      again: true,
      nowMs,
      audit: audit('bundle.activated'),
    });
    const before = await memory();
    const { newId } = await import('../../dist/core/ids.js');
    const reading = await stores.ledger.read({ nowMs });
    const commit = (at) =>
      stores.ledger.commitLease({
        lease: {
          id: newId('lse', `b${effects.length}`, nowMs),
          kind: 'token',
          path: [],
          agent: `spiffe://dev.mayfly/agent/a${at % 100}`,
          actors: [],
          owner: 'o',
          team: 't',
          environment: 'production',
          resource: ORDERS,
          tools: ['orders.read'],
          position: reading.position,
          generations: [],
          bundle: 'sha256:bench',
          keyId: 'k',
          identityKeyId: 'dev#k',
          proof: 'jwt-svid',
          binding: 'none',
          state: 'active',
          createdAtMs: nowMs,
          expiresAtMs: nowMs + 900_000,
        },
        basis: { position: reading.position, bundle: 'sha256:bench', generations: [] },
        quotas: { leasesPerTask: 1e7, leasesPerAgent: 1e7, perTree: 1e7 },
        nowMs,
        audit: audit('token.minted'),
      });
    for (let at = 0; at < count; at += 64) {
      const outcomes = await Promise.all(
        Array.from({ length: Math.min(64, count - at) }, (_, more) => commit(at + more)),
      );
      if (outcomes.some(({ outcome }) => outcome !== 'committed')) throw new Error(JSON.stringify(outcomes[0]));
    }
    const withAudit = await memory();
    await redis.del(`{mayfly:b${effects.length}}:audit`);
    const perLease = ((await memory()) - before) / count;
    const atMs = performance.now();
    const applied = await stores.ledger.revoke({
      revocation: {
        id: newId('rev', `b${effects.length}`, nowMs),
        selector: { team: 't' },
        reason: 'bench',
        by: 'bench',
        createdAtMs: nowMs,
      },
      matches: [{ sel: ['x'] }],
      untilMs: nowMs + 900_000,
      nowMs,
      audit: audit('revocation.applied'),
    });
    await stores.feed.reached(applied.position, 5_000);
    const effectMs = performance.now() - atMs;
    effects.push(effectMs);
    typicalMs.set(count, await typicalEffect(stores, `b${effects.length - 1}`, audit('revocation.applied')));
    let longestMs = 0;
    let done = false;
    const pinging = (async () => {
      while (!done) {
        const from = performance.now();
        await redis.ping();
        longestMs = Math.max(longestMs, performance.now() - from);
      }
    })();
    let cursor;
    do {
      const page = await stores.views.leases({ limit: 500, ...(cursor && { cursor }) });
      if (page.items.length > 0)
        await stores.ledger.revokeLeases({
          leaseIds: page.items.map((lease) => lease.id),
          reason: 'bench',
          nowMs,
          audit: audit('leases.revoked'),
        });
      cursor = page.cursor;
    } while (cursor);
    done = true;
    await pinging;
    redis.disconnect();
    await stores.close();
    if (count === FEW) continue;
    rows.push(
      {
        row: `bulk revoke of ${count}, time to effect (ms)`,
        ours: `${effectMs.toFixed(1)} ms`,
        peer: '',
        ratio: effectMs,
        floor: 10,
        aim: 1,
        more: false,
      },
      {
        row: `bulk revoke of ${count}, longest stall of another client (ms)`,
        ours: `${longestMs.toFixed(1)} ms`,
        peer: '',
        ratio: longestMs,
        floor: 25,
        aim: 10,
        more: false,
      },
      {
        row: `memory per token lease of ${count}, all indexes (B)`,
        ours: `${perLease.toFixed(0)} B`,
        peer: `${((withAudit - before) / count).toFixed(0)} B with its audit record`,
        ratio: perLease,
        floor: 600,
        aim: 360,
        more: false,
      },
    );
  }
  const [fewest, most] = [Math.min(...counts), Math.max(...counts)];
  if (most > fewest) {
    rows.push({
      row: `bulk revoke, time to effect, p50 of ${most} by p50 of ${fewest}`,
      ours: `${typicalMs.get(most).toFixed(2)} ms`,
      peer: `${typicalMs.get(fewest).toFixed(2)} ms`,
      ratio: typicalMs.get(most) / typicalMs.get(fewest),
      floor: 2,
      aim: 1.25,
      more: false,
    });
  }
  return rows;
}

/** The median of some more revocations of everything, until this broker's own table has them. */
async function typicalEffect(stores, cell, audit) {
  const { newId } = await import('../../dist/core/ids.js');
  const eachMs = [];
  for (let at = 0; at < 51; at++) {
    const nowMs = Date.now();
    const from = performance.now();
    const applied = await stores.ledger.revoke({
      revocation: {
        id: newId('rev', cell, nowMs),
        selector: { owner: 'o' },
        reason: 'bench',
        by: 'bench',
        createdAtMs: nowMs,
      },
      matches: [{ sel: ['y'] }],
      untilMs: nowMs + 900_000,
      nowMs,
      audit,
    });
    await stores.feed.reached(applied.position, 5_000);
    eachMs.push(performance.now() - from);
  }
  return median(eachMs);
}

function perCallUs(calls, call) {
  const from = performance.now();
  for (let at = 0; at < calls; at++) call(at);
  return ((performance.now() - from) * 1000) / calls;
}

export { until };
