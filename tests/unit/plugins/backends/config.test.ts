import { BrokerError } from '../../../../src/core/errors.js';
import { checkConfig } from '../../../../src/main/config.js';

const rest = {
  issuer: 'https://mayfly.example',
  root_key_file: '/run/root.key',
  redis: { url: 'redis://127.0.0.1:6379' },
  identity: { trust_domains: [{ name: 'prod.example', source: { kind: 'file', path: '/run/bundle.json' } }] },
};
const orders = {
  kind: 'postgres',
  host: 'db.example',
  tls: { ca_file: '/run/ca.pem' },
  managers: [{ user: 'mayfly_1', password_file: '/run/mayfly_1' }],
};

function problemsOf(backends: unknown): string[] {
  try {
    checkConfig({ ...rest, backends });
  } catch (error) {
    if (error instanceof BrokerError) return error.detail.problems ?? [];
    throw error;
  }
  return [];
}

describe('backends in the configuration', () => {
  it('a backend gets its defaults', () => {
    const { backends } = checkConfig({ ...rest, backends: { orders } });
    expect(backends['orders']).toMatchObject({
      kind: 'postgres',
      port: 5432,
      issue_timeout_seconds: 2,
      revoke_timeout_seconds: 5,
      scram_iterations: 4096,
      prepared_transactions: 'refuse',
    });
  });

  it('none is none', () => expect(checkConfig(rest).backends).toEqual({}));

  it.each([
    [
      { orders: { ...orders, kind: 'postgre' } },
      'backends.orders.kind: "postgre" is no kind of backend; did you mean "postgres".',
    ],
    [
      { orders: { ...orders, kind: '__proto__' } },
      /^backends\.orders\.kind: "__proto__" is no kind of backend \(there are .*postgres/,
    ],
    [{ orders: { ...orders, kind: 7 } }, /needs a kind: one of .*postgres/],
    [{ orders: 'postgres' }, /^backends\.orders/],
    [{ 'orders:1': orders }, /^backends\.orders:1: .*name/],
    [{ orders: { ...orders, mangers: [] } }, 'backends.orders.mangers: not a setting; did you mean "managers"?'],
    [{ orders: { ...orders, tls: { ca: '/run/ca.pem' } } }, /^backends\.orders\.tls\.ca: not a setting/],
    [
      { orders: { ...orders, tls: undefined } },
      'backends.orders.tls: is required for a server that is not on this machine.',
    ],
    [{ orders: { ...orders, tls: undefined, host: '127.example.com' } }, /tls: is required/],
    [{ orders: { ...orders, tls: { cert_file: '/run/cert.pem' } } }, /needs cert_file and key_file together/],
    [{ orders: { ...orders, managers: [] } }, /^backends\.orders\.managers/],
    [{ orders: { ...orders, managers: [orders.managers[0], orders.managers[0]] } }, /has to name each user once/],
    [{ orders: { ...orders, managers: [{ user: 'm', password: 'p' }] } }, /password/],
    [{ orders: { ...orders, issues_max: 0 } }, /^backends\.orders\.issues_max/],
    [{ orders: { ...orders, statements: { creation: ['GRANT x TO {{agent}}'] } } }, /may hold \{\{role\}\}/],
    [{ orders: { ...orders, statements: { creation: ['GRANT x TO {{role}'] } } }, /may hold \{\{role\}\}/],
    [{ orders: { ...orders, statements: { creation: ['GRANT x TO {{constructor}}'] } } }, /may hold \{\{role\}\}/],
    [{ orders: { ...orders, database: 'd'.repeat(64) } }, /at most 63 bytes/],
  ])('%j is refused, by name', (backends, problem) => {
    expect(problemsOf(backends).join('\n')).toMatch(
      problem instanceof RegExp ? problem : new RegExp(`^${literally(problem)}$`),
    );
  });

  function literally(text: string): string {
    return text.replaceAll(/[.?*+^$()[\]{}|\\]/g, '\\$&');
  }
});
