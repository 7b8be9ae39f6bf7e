import { readFileSync } from 'node:fs';
import type { SecretData } from '../../../src/core/credential.js';
import { postgres } from '../../../src/plugins/backends/postgres.js';
import { DATABASE, GROUP, OTHER_GROUP, startServer } from '../../backends/postgres/server.js';
import { installation } from './deps.js';
import { doorwayTo } from './doorway.js';
import type { Harness, World } from './harness.js';

export const postgresHarness: Harness = {
  promises: ['instant'],
  abilities: ['renew', 'find', 'probe'],
  canHang: true,
  async open(): Promise<World> {
    const ours = await installation();
    const server = await startServer();
    const doorway = await doorwayTo(server.port, server.host);
    const config = postgres.config.parse({
      kind: 'postgres',
      host: '127.0.0.1',
      port: doorway.port,
      managers: server.managers,
      scram_iterations: 64,
    });
    const make = (which?: string) => postgres.create(config, ours.deps('orders-db', which));
    const secret = (name: string, groups: string[]) => ({
      name,
      settings: { database: DATABASE, groups },
      promised: 'instant' as const,
      secretFields: ['password'],
    });
    const logIn = ({ username, password }: SecretData) =>
      server.logIn({ user: String(username), password: String(password), database: DATABASE });
    return {
      backend: await make(),
      another: () => make(),
      stranger: () => make('theirs'),
      secrets: [secret('orders-read', [GROUP]), secret('orders-write', [OTHER_GROUP, GROUP])],
      badSettings: {
        'nothing said': {},
        'no group': { database: DATABASE, groups: [] },
        'a group that is too long a name': { database: DATABASE, groups: ['g'.repeat(64)] },
        'a group with a NUL': { database: DATABASE, groups: ['g\0'] },
        'no text': { database: 7, groups: [GROUP] },
        'an empty database': { database: '', groups: [GROUP] },
        'sessions without end': { database: DATABASE, groups: [GROUP], connection_limit: -1 },
        'statements of its own': { database: DATABASE, groups: [GROUP], creation: 'CREATE ROLE x SUPERUSER' },
      },
      async works(data) {
        try {
          const session = await logIn(data);
          await session.query('select item from public.orders limit 1').finally(() => session.end());
          return true;
        } catch {
          return false;
        }
      },
      async count() {
        const [row] = await server.ask("select count(*)::int from pg_roles where rolname ~ '^mayfly_[a-z0-9]{8}_'");
        return row?.['count'] as number;
      },
      down: (how) => doorway.turn(how),
      up: () => doorway.turn('open'),
      ours: server.managers.map(({ password_file: file }) => readFileSync(file, 'utf8').trim()),
      async close() {
        await doorway.close();
        await server.stop();
      },
    };
  },
};
