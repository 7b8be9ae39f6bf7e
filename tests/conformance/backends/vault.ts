import { readFileSync } from 'node:fs';
import { vault } from '../../../src/plugins/backends/vault.js';
import {
  type Bao,
  brokerToken,
  databaseRole,
  ROOT,
  setUpOrders,
  startBao,
  startDatabase,
  tokenRole,
} from '../../peers/vault-world.js';
import { installation } from './deps.js';
import { doorwayTo } from './doorway.js';
import type { Harness, SecretCase, World } from './harness.js';

const KEY = 'secret/data/pager';

/** What config/vault/mayfly-broker.hcl is for one secret, for all of these. */
function brokerPolicy(): string {
  const shipped = readFileSync('config/vault/mayfly-broker.hcl', 'utf8');
  const ofBoth = shipped.replaceAll(
    '"database/creds/orders/*"',
    '"database/creds/orders/*", "database/creds/theirs/*"',
  );
  const [made = ''] = /path "auth\/token\/create\/[^}]*}\s*}/.exec(shipped) ?? [];
  const listed = 'path "sys/leases/lookup/database/creds/theirs/" { capabilities = ["list", "sudo"] }';
  const others = ['theirs', 'pager', 'shell'].map((role) => made.replace('mayfly-orders', `mayfly-${role}`));
  return [ofBoth, listed, ...others, 'path "secret/metadata/pager" { capabilities = ["read"] }'].join('\n');
}

async function setUpOthers(bao: Bao): Promise<void> {
  await databaseRole(bao, 'theirs');
  await tokenRole(bao, 'mayfly-pager', `path "${KEY}" { capabilities = ["read"] }`);
  await bao.set('sys/mounts/ssh', { type: 'ssh' });
  await bao.set('ssh/config/ca', { generate_signing_key: true, key_type: 'ed25519' });
  await bao.set('ssh/roles/shell', {
    key_type: 'ca',
    allow_user_certificates: true,
    allowed_users: 'deploy',
    default_user: 'deploy',
    ttl: '1h',
    max_ttl: '24h',
  });
  await tokenRole(bao, 'mayfly-shell', 'path "ssh/issue/shell" { capabilities = ["update"] }');
  await bao.policy('mayfly-broker', brokerPolicy());
}

/** Valid before, out of an OpenSSH certificate: the eighth field of its text. */
function endOfCertificate(signed: string): number {
  const bytes = Buffer.from(signed.split(' ')[1] as string, 'base64');
  let at = 0;
  const text = () => {
    const length = bytes.readUInt32BE(at);
    at += 4 + length;
    return length;
  };
  // Type, nonce, key; then serial, what for; then key id and principals; then from when and until when.
  for (let parts = 0; parts < 3; parts += 1) text();
  at += 8 + 4;
  for (let parts = 0; parts < 2; parts += 1) text();
  return Number(bytes.readBigUInt64BE(at + 8)) * 1000;
}

export const vaultHarness: Harness = {
  promises: ['instant', 'rotate-only', 'expiry-only'],
  abilities: ['renew', 'find', 'probe'],
  canHang: true,
  async open(): Promise<World> {
    const ours = await installation();
    const [bao, database] = await Promise.all([startBao(), startDatabase()]);
    await setUpOrders(bao, database);
    await setUpOthers(bao);
    let current = '';
    let versions = 0;
    const rotate = async () => {
      versions += 1;
      current = `a-key-of-the-pager-${versions}-${ROOT.length}`;
      await bao.set(KEY, { data: { key: current } });
    };
    await rotate();
    const doorway = await doorwayTo(bao.port);
    const { file } = await brokerToken(bao);
    const config = vault.config.parse({
      kind: 'vault',
      address: `http://127.0.0.1:${doorway.port}`,
      auth: { method: 'token', token_file: file },
    });
    const make = (which?: string) => vault.create(config, ours.deps('vault', which));
    const databaseSecret = (role: string): SecretCase => ({
      name: role,
      settings: {
        engine: 'database',
        role,
        token_role: `mayfly-${role}`,
        host: '127.0.0.1',
        port: database.proxy.port,
        database: 'postgres',
        probe: { tls: false },
      },
      promised: 'instant',
      secretFields: ['password'],
    });
    return {
      backend: await make(),
      another: () => make(),
      stranger: () => make('theirs'),
      secrets: [
        databaseSecret('orders'),
        {
          name: 'pager',
          settings: { engine: 'kv', path: 'pager', token_role: 'mayfly-pager' },
          promised: 'rotate-only',
          secretFields: ['key'],
        },
        {
          name: 'shell',
          settings: { engine: 'ssh', role: 'shell', token_role: 'mayfly-shell', valid_principals: ['deploy'] },
          promised: 'expiry-only',
          ttlMs: 3_000,
          secretFields: ['private_key'],
        },
      ],
      theirs: databaseSecret('theirs'),
      badSettings: {
        'nothing said': {},
        'another engine': { engine: 'transit' },
        'a role that is a path': { ...databaseSecret('../sys/seal').settings },
        'a mount that leads out': { ...databaseSecret('orders').settings, mount: 'database/../sys' },
        'a role with a query': { ...databaseSecret('orders?list=1').settings },
        'an encoded slash': { ...databaseSecret('a%2fb').settings },
        'a path that leads out': { engine: 'kv', path: '../sys/seal' },
        'a path with a NUL': { engine: 'kv', path: 'pager\0' },
        'nobody to be': { engine: 'ssh', role: 'shell', valid_principals: [] },
      },
      async works(data, { promised }) {
        if (promised === 'instant') return (await database.login(data)) === null;
        if (promised === 'rotate-only') return data['key'] === current;
        return endOfCertificate(String(data['signed_key'])) > Date.now();
      },
      count: async () => (await database.roles()).filter((role) => role.startsWith('token-mayfly-')).length,
      rotate,
      down: (how) => doorway.turn(how),
      up: () => doorway.turn('open'),
      ours: [readFileSync(file, 'utf8').trim(), ROOT, database.superuser.password],
      async close() {
        await doorway.close();
        await database.close();
        bao.close();
      },
    };
  },
};
