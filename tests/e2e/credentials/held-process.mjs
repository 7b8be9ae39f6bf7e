// `mayfly start` for tests that stand in its way: each call of the ledger and of a backend can be held, before it is made or after it was answered,
// until the parent says go on. So can what is asked of a Vault inside such a call: `backend.issue: database/creds/orders`. What happens to whom meanwhile
// is the parent's business. Run with an IPC channel: node held-process.mjs CONFIG ROLE
import { AsyncLocalStorage } from 'node:async_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { prepare } from '../../../scripts/prepare.mjs';

prepare();
await import('../../../dist/plugins/policy/v8-flag.js');

const { loadConfig, readRootKey, redisAddress } = await import('../../../dist/main/config.js');
const { openOps } = await import('../../../dist/main/ops.js');
const { readBundle } = await import('../../../dist/main/read-bundle.js');
const { VaultClient } = await import('../../../dist/plugins/backends/vault/client.js');
const { startBroker } = await import('../../../dist/main/server.js');
const { logTo } = await import('../../../dist/main/telemetry.js');

const [file, role] = process.argv.slice(2);
/** What to hold next: `{call, when, about}`; `about` names the lease or task that has to be in the call. */
let armed;
let release;

process.on('message', ({ hold, go }) => {
  if (hold) armed = hold;
  if (!go) return;
  armed = undefined;
  release?.();
  release = undefined;
});
process.on('disconnect', () => process.exit(0));

async function gate(call, when, args) {
  if (armed?.call !== call || armed.when !== when) return;
  if (armed.about.length > 0 && !armed.about.some((id) => JSON.stringify(args).includes(id))) return;
  armed = undefined;
  process.send({ held: call });
  await new Promise((resolve) => {
    release = resolve;
  });
}

/** The call of a ledger or a backend that we are in. */
const inside = new AsyncLocalStorage();

/** The same call, through a gate before and after. */
function gated(call, target, method) {
  return async (...args) => {
    if (call === 'ledger.openIntent') process.send({ intended: args[0].lease.id });
    await gate(call, 'before', args);
    try {
      return await inside.run({ call, args }, () => method.apply(target, args));
    } finally {
      await gate(call, 'after', args);
    }
  };
}

/** The ledger is asked through `parts` each time. */
function gatedLedger(ledger) {
  return new Proxy(ledger, {
    get(_, member) {
      const value = ledger[member];
      return typeof value === 'function' ? gated(`ledger.${String(member)}`, ledger, value) : value;
    },
  });
}

/** What a backend itself is asked. Some hold on to it from the start, so it is changed in place. */
function gateBackend(backend) {
  for (const member of ['issue', 'revoke', 'confirm', 'probe', 'renew']) {
    if (backend[member]) backend[member] = gated(`backend.${member}`, backend, backend[member]);
  }
  const { find } = backend;
  if (!find) return;
  backend.find = async function* (...args) {
    await gate('backend.find', 'before', args);
    yield* await inside.run({ call: 'backend.find', args }, async () => {
      const all = [];
      for await (const one of find.apply(backend, args)) all.push(one);
      return all;
    });
    await gate('backend.find', 'after', args);
  };
}

function gateVaults() {
  const { ask } = VaultClient.prototype;
  VaultClient.prototype.ask = async function (question) {
    const outer = inside.getStore();
    if (!outer) return await ask.call(this, question);
    const call = `${outer.call}: ${question.path}`;
    await gate(call, 'before', outer.args);
    try {
      return await ask.call(this, question);
    } finally {
      await gate(call, 'after', outer.args);
    }
  };
}

gateVaults();
const config = loadConfig({ file, env: {} });
const ops = await openOps(config.ops);
const log = logTo(config.log.level);
const start = async () =>
  startBroker({
    config,
    role,
    rootKey: readRootKey(config.root_key_file),
    redisUrl: redisAddress(config),
    bundleFiles: await readBundle(config.bundle.dir),
    observe: (event) => {
      ops.metrics.observe(event);
      log(event);
    },
    metrics: ops.metrics,
  });
/** As the command does: a store that does not answer in time is asked again. */
async function startPatiently(tries = 10) {
  try {
    return await start();
  } catch (error) {
    if (error.code !== 'unavailable' || tries === 0) throw error;
    await delay(500);
    return startPatiently(tries - 1);
  }
}
const { parts, stop } = await startPatiently();
parts.ledger = gatedLedger(parts.ledger);
for (const backend of parts.backends.all()) gateBackend(backend);
ops.started(parts, role);
process.on('SIGTERM', async () => {
  await stop(1_000);
  await ops.close();
  process.exit(0);
});
