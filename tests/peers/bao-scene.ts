import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type pg from 'pg';
import { newId } from '../../src/core/ids.js';
import type { LeaseRecord } from '../../src/core/lease.js';
import { DATABASE, GROUP, type TestServer } from '../backends/postgres/server.js';
import { until } from '../e2e/brokers.js';
import type { Oddities } from '../e2e/credentials/points.js';
import { type Issued, Scene } from '../e2e/credentials/scene.js';
import { type DurableBao, startDurableBao } from './durable-bao.js';
import { type FaultProxy, startFaultProxy } from './fault-proxy.js';
import { databaseRole, ordersOf, setUpOrders } from './vault-world.js';

export const BAO_SECRET = 'bao-orders';
export const CREDS = 'database/creds/orders';
export const TOKENS = 'auth/token/create/mayfly-orders';

export const BACKEND = 'bao';
const LOOK_EVERY_MS = 250;
const READY_WITHIN_MS = 60_000;
const WAITS_WITHIN_MS = 5_000;
const HOLD = 'BEGIN; LOCK TABLE pg_authid IN SHARE MODE';

/** What there is at the OpenBao under our names. */
export interface AtBao {
  /** Tokens by accessor; `lease`: ours, that it was made for. */
  tokens: Map<string, { lease: string | undefined }>;
  /** Ids of its leases of the secret, whosever. */
  leases: Set<string>;
}

/** The scene with a real OpenBao that keeps what it has when it is killed, and the same PostgreSQL behind its database engine. */
export class BaoScene {
  readonly scene: Scene;
  readonly bao: DurableBao;
  readonly proxy: FaultProxy;
  /** When each of OpenBao's leases and tokens was there. */
  readonly seen = new Map<string, { firstMs: number; lastMs: number }>();
  readonly #superuser: { user: string; password: string };
  readonly #names = new Map<string, string | undefined>();

  private constructor(
    scene: Scene,
    parts: { bao: DurableBao; proxy: FaultProxy; superuser: { user: string; password: string } },
  ) {
    this.scene = scene;
    this.bao = parts.bao;
    this.proxy = parts.proxy;
    this.#superuser = parts.superuser;
  }

  static async open(): Promise<BaoScene> {
    const bao = await startDurableBao();
    const proxy = await startFaultProxy(bao.port);
    let looking: NodeJS.Timeout | undefined;
    const superuser = { user: 'vault', password: randomBytes(16).toString('hex') };
    const scene = await Scene.open(async ({ postgres, postgresProxy }) => {
      await setUp(bao, postgres, postgresProxy, superuser);
      const secretId = await bao.set('auth/approle/role/mayfly/secret-id', {});
      const file = join(bao.dir, 'secret-id');
      writeFileSync(file, secretId.body.data.secret_id, { mode: 0o600 });
      const { body } = await bao.ask('GET', 'auth/approle/role/mayfly/role-id');
      return {
        backends: {
          [BACKEND]: {
            kind: 'vault',
            address: `http://127.0.0.1:${proxy.port}`,
            auth: { method: 'approle', role_id: body.data.role_id, secret_id_file: file },
            revoke_timeout_seconds: 2,
          },
        },
        secrets: {
          [BAO_SECRET]: {
            backend: BACKEND,
            sensitivity: 'confidential',
            ttl_max: '1h',
            settings: { ...ordersOf({ proxy: postgresProxy }), database: DATABASE },
          },
        },
        server: {
          proxy,
          halt: bao.kill,
          resume: bao.restart,
          async close() {
            clearInterval(looking);
            await bao.close();
          },
        },
      };
    });
    const own = new BaoScene(scene, { bao, proxy, superuser });
    looking = setInterval(() => void own.look().catch(() => {}), LOOK_EVERY_MS);
    await until('its secret can be had', READY_WITHIN_MS, () => scene.canIssue(BAO_SECRET));
    return own;
  }

  async look(): Promise<AtBao> {
    const nowMs = performance.now();
    const [accessors, leases] = await Promise.all([
      this.#list('auth/token/accessors'),
      this.#list(`sys/leases/lookup/${CREDS}`),
    ]);
    const tokens: AtBao['tokens'] = new Map();
    for (const accessor of accessors) {
      const { isOurs, lease } = await this.#tokenOf(accessor);
      if (isOurs) tokens.set(accessor, { lease });
    }
    const ids = new Set(leases.map((key) => `${CREDS}/${key}`));
    for (const id of [...ids, ...tokens.keys()]) {
      this.seen.set(id, { firstMs: this.seen.get(id)?.firstMs ?? nowMs, lastMs: nowMs });
    }
    return { tokens, leases: ids };
  }

  /** Ours that are not closed. */
  async openLeases(): Promise<LeaseRecord[]> {
    const { items } = await (await this.scene.views()).leases({ backend: BACKEND, limit: 500 });
    return items;
  }

  async lease(id: string): Promise<LeaseRecord | undefined> {
    return await (await this.scene.views()).lease(id);
  }

  /**
   * Nobody can make or drop a role meanwhile: whoever tries waits. `waits` resolves when somebody does for a role with this in its name. OpenBao asks
   * PostgreSQL for one thing after the other, so whoever else waits is let through first.
   */
  async holdingRoles<T>(during: (waits: (name: string) => Promise<void>) => Promise<T>): Promise<T> {
    const client = await this.#logIn();
    try {
      await client.query(HOLD);
      return await during((name) =>
        until('somebody waits for PostgreSQL', WAITS_WITHIN_MS, async () => {
          // From outside of the transaction, which would see the same activity all the time.
          const rows = await this.scene.postgres.ask(
            `SELECT position('${name.replaceAll('_', '-')}' IN query) > 0 AS "isThis"
               FROM pg_locks JOIN pg_stat_activity USING (pid)
              WHERE relation = 'pg_authid'::regclass AND NOT granted`,
          );
          const isThere = rows.some((row) => row['isThis'] === true);
          if (!isThere && rows.length > 0) await client.query(`COMMIT; ${HOLD}`);
          return isThere;
        }),
      );
    } finally {
      await client.end();
    }
  }

  async #logIn(): Promise<pg.Client> {
    return await this.scene.postgres.logIn({ ...this.#superuser, database: 'postgres' });
  }

  async #list(path: string): Promise<string[]> {
    const { status, body } = await this.bao.ask('LIST', path);
    if (status === 404) return [];
    if (status !== 200) throw new Error(`${path}: ${status}`);
    return body.data.keys;
  }

  async #tokenOf(accessor: string): Promise<{ isOurs: boolean; lease: string | undefined }> {
    let name = this.#names.get(accessor);
    if (name === undefined) {
      const { status, body } = await this.bao.ask('POST', 'auth/token/lookup-accessor', { accessor });
      // Gone since it was listed.
      if (status !== 200) return { isOurs: false, lease: undefined };
      name = `${body.data.display_name} ${body.data.meta?.mayfly_lease ?? ''}`;
      this.#names.set(accessor, name);
    }
    const [displayName = '', lease = ''] = name.split(' ');
    return { isOurs: displayName.startsWith('token-mayfly'), lease: lease === '' ? undefined : lease };
  }
}

/** As docs/plugins/backends/vault.md sets it up. */
async function setUp(
  bao: DurableBao,
  postgres: TestServer,
  proxy: { port: number },
  superuser: { user: string; password: string },
): Promise<void> {
  await postgres.ask(`CREATE ROLE ${superuser.user} LOGIN SUPERUSER PASSWORD '${superuser.password}'`);
  await setUpOrders(bao, { superuser, proxy });
  await databaseRole(bao, 'orders', {
    creation_statements: [
      `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE ${GROUP}`,
    ],
  });
  await bao.set('sys/auth/approle', { type: 'approle' });
  await bao.set('auth/approle/role/mayfly', {
    token_policies: ['mayfly-broker'],
    token_no_default_policy: true,
    token_ttl: '1h',
  });
}

/**
 * Nobody's: made with a token that was revoked while its read was under way, which does not stop the read. Lost: revoked at the OpenBao by somebody else.
 */
export const atBao = (own: () => BaoScene): Oddities => ({
  backend: BACKEND,
  secret: BAO_SECRET,
  async plant(_, like: Issued) {
    const { bao } = own();
    const lease = newId('lse', 'a', Date.now());
    const name = (like.reply.body['lease_id'] as string).slice('lse_'.length);
    const display = like.role.slice('token-'.length).replaceAll('-', '_').replace(name, lease.slice('lse_'.length));
    const { body } = await bao.set(TOKENS, { display_name: display, ttl: '10m', explicit_max_ttl: '10m' });
    const { client_token: token, accessor } = body.auth;
    const made = await own().holdingRoles(async (waits) => {
      const reading = bao.ask('GET', CREDS, undefined, { token });
      await waits(lease.slice('lse_'.length));
      await bao.set('auth/token/revoke-accessor', { accessor });
      return { reading };
    });
    const reply = await made.reading;
    if (reply.status !== 200) throw new Error(`no orphan: ${reply.status} ${JSON.stringify(reply.body)}`);
    await own().scene.witness.look();
    return { lease, about: reply.body.lease_id };
  },
  async lose(_, { lease }) {
    const { handle } = (await own().lease(lease)) ?? {};
    await own().bao.set('sys/leases/revoke', { lease_id: handle?.['lease'], sync: true });
  },
});
