// Load from a process of its own, through what a balancer does: it asks each broker's readiness often, sends requests only to those that are ready,
// and tries another one when a connection cannot be made. A 503 that says when to come again is counted, for the test to ask the broker why. Anything
// else that goes wrong with a request is a failure.
//   node load.mjs TARGETS_FILE   (JSON: brokers {url, opsUrl}, requests {path, headers, body}, feedToken, callers, pauseMs)
// Runs until its input ends, then prints what came of it as JSON.
import { readFileSync } from 'node:fs';
import { Agent, get, request } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

const READY_EVERY_MS = 50;
const file = process.argv[2];
const read = () => JSON.parse(readFileSync(file, 'utf8'));
// `pauseMs` between two requests of one caller: what is tested is the leaving, not how much a machine can bear.
const { requests, feedToken, callers, pauseMs } = read();
const agent = new Agent({ keepAlive: true, maxSockets: 64 });
const done = {
  granted: 0,
  leases: [],
  failed: [],
  unavailable: 0,
  elsewhere: 0,
  streams: { opened: 0, ended: 0, cut: 0 },
};
let ready = [];
let isOver = false;

process.stdin.on('end', () => {
  isOver = true;
});
process.stdin.resume();

/** Each broker is asked for itself: one that is slow to answer does not keep the news about another one. */
async function watch() {
  const asked = new Set();
  while (!isOver) {
    const { brokers } = read();
    ready = ready.filter(({ url }) => brokers.some((broker) => broker.url === url));
    for (const broker of brokers) {
      if (asked.has(broker.opsUrl)) continue;
      asked.add(broker.opsUrl);
      isReady(broker).then((is) => {
        asked.delete(broker.opsUrl);
        const others = ready.filter(({ opsUrl }) => opsUrl !== broker.opsUrl);
        ready = is ? [...others, broker] : others;
      });
    }
    await delay(READY_EVERY_MS);
  }
}

function isReady({ opsUrl }) {
  return new Promise((resolve) => {
    get(`${opsUrl}/readyz`, (reply) => {
      reply.resume();
      resolve(reply.statusCode === 200);
    }).on('error', () => resolve(false));
  });
}

function post(url, { path, headers, body }) {
  return new Promise((resolve) => {
    const sent = request(`${url}${path}`, {
      method: 'POST',
      agent,
      headers: { ...headers, 'content-length': Buffer.byteLength(body) },
    });
    sent.on('response', (reply) => {
      let text = '';
      reply.on('data', (chunk) => {
        text += chunk;
      });
      reply.on('end', () => resolve({ status: reply.statusCode, text, retryAfter: reply.headers['retry-after'] }));
      reply.on('error', (error) => resolve({ error, reused: sent.reusedSocket }));
    });
    sent.on('error', (error) => resolve({ error, reused: sent.reusedSocket }));
    sent.end(body);
  });
}

async function call(number) {
  for (let turn = number; !isOver; turn++) {
    const broker = ready[turn % Math.max(ready.length, 1)];
    if (!broker) {
      await delay(5);
      continue;
    }
    const { status, text, retryAfter, error, reused } = await post(broker.url, requests[turn % requests.length]);
    if (error?.code === 'ECONNREFUSED') {
      done.elsewhere += 1;
      ready = ready.filter((one) => one !== broker);
    } else if (error) done.failed.push(`${error.code ?? error.message} (${reused ? 'kept' : 'new'} connection)`);
    else if (status === 200) {
      done.granted += 1;
      done.leases.push(JSON.parse(text).lease_id);
    } else if (status === 503 && retryAfter) done.unavailable += 1;
    else done.failed.push(`${status} ${text.slice(0, 200)}`);
    await delay(pauseMs);
  }
}

async function follow() {
  while (!isOver) {
    const broker = ready[0];
    if (broker) await stream(broker.url);
    await delay(20);
  }
}

function stream(url) {
  return new Promise((resolve) => {
    const headers = { authorization: `Bearer ${feedToken}` };
    const sent = get(`${url}/v1/feed`, { headers, agent: false }, (reply) => {
      if (reply.statusCode !== 200) {
        if (reply.statusCode === 503) done.unavailable += 1;
        else done.failed.push(`feed: ${reply.statusCode}`);
        reply.resume();
        return resolve();
      }
      done.streams.opened += 1;
      const check = setInterval(() => isOver && reply.destroy(), 50);
      reply.resume();
      reply.on('end', () => {
        done.streams.ended += 1;
      });
      reply.on('close', () => {
        clearInterval(check);
        if (!reply.complete && !isOver) done.streams.cut += 1;
        resolve();
      });
      reply.on('error', () => {});
    });
    sent.on('error', (error) => {
      if (error.code !== 'ECONNREFUSED' && !isOver) done.failed.push(`feed: ${error.code}`);
      resolve();
    });
  });
}

await Promise.all([watch(), follow(), ...Array.from({ length: callers }, (_, number) => call(number))]);
process.stdout.write(JSON.stringify(done), () => process.exit(0));
