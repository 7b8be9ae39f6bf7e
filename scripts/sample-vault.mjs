// The sample secret `orders-db` through a Vault or OpenBao instead: its database engine is pointed at the sample PostgreSQL, and the token role and
// policies are written as docs/plugins/backends/vault.md says. Only for a development server: the given token has to be allowed all that.
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { ROOT } from './prepare.mjs';

const MOUNT = 'mayfly-sample';
const TOKEN_ROLE = 'mayfly-sample';

/** Asks the server of `MAYFLY_VAULT_ADDR` as whoever `MAYFLY_VAULT_TOKEN_FILE` says; what is wrong with either is told with its name. */
function vaultAt({ address, tokenFile }) {
  if (!/^https?:\/\//.test(address) || !URL.canParse(address))
    throw new Error(`MAYFLY_VAULT_ADDR: ${address} is not an address such as http://127.0.0.1:8200`);
  let token;
  try {
    token = readFileSync(tokenFile, 'utf8').trim();
  } catch ({ code }) {
    throw new Error(
      `MAYFLY_VAULT_TOKEN_FILE: ${tokenFile} cannot be read (${code}): name a file with a token of that development server`,
    );
  }
  // What is in it is not shown; a header takes no line end.
  if (!/^[\x21-\x7e]+$/.test(token))
    throw new Error(
      `MAYFLY_VAULT_TOKEN_FILE: ${tokenFile} holds no token: it has to be one line, a token of that development server`,
    );
  return async (method, path, body) => {
    const reply = await fetch(`${address}/v1/${path}`, {
      method,
      headers: { 'X-Vault-Token': token },
      redirect: 'error',
      signal: AbortSignal.timeout(10_000),
      ...(body && { body: JSON.stringify(body) }),
    }).catch((error) => {
      const { code, message } = error.cause ?? error;
      throw new Error(
        `MAYFLY_VAULT_ADDR: nothing answers at ${address} (${code || message}): start that Vault or OpenBao, or unset MAYFLY_VAULT_ADDR`,
      );
    });
    if (reply.status === 403)
      throw new Error(
        `MAYFLY_VAULT_TOKEN_FILE: ${address} answers 403 to ${method} ${path}: name a file with a token that may set that server up, such as its root token`,
      );
    if (reply.status > 299)
      throw new Error(`MAYFLY_VAULT_ADDR: ${address} answers ${reply.status} to ${method} ${path}`);
    return reply.status === 204 ? undefined : reply.json();
  };
}

/** Whether that server is there and lets us in; for before a database is started for it. */
export async function mustAnswer(vault) {
  await vaultAt(vault)('GET', 'sys/mounts');
}

/** Sets the server up, and says which backend and which settings of the secret go with it. `postgres`: where, and as whom, the engine makes users. */
export async function setUpVault({ address, tokenFile, postgres, group, database }) {
  const ask = vaultAt({ address, tokenFile });
  const mounts = await ask('GET', 'sys/mounts');
  if (!(mounts.data ?? mounts)[`${MOUNT}/`]) await ask('POST', `sys/mounts/${MOUNT}`, { type: 'database' });
  const { host, port, user, password } = postgres;
  await ask('POST', `${MOUNT}/config/orders`, {
    plugin_name: 'postgresql-database-plugin',
    allowed_roles: 'orders',
    connection_url: `postgresql://{{username}}:{{password}}@${host}:${port}/postgres?sslmode=disable`,
    username: user,
    password,
    username_template: '{{.DisplayName}}',
  });
  await ask('POST', `${MOUNT}/roles/orders`, {
    db_name: 'orders',
    creation_statements: [
      `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE ${group}`,
    ],
    revocation_statements: [
      'ALTER ROLE "{{name}}" NOLOGIN',
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}'",
      'DROP ROLE IF EXISTS "{{name}}"',
    ],
    default_ttl: '15m',
    max_ttl: '1h',
  });
  await ask('POST', `sys/policies/acl/${TOKEN_ROLE}`, {
    policy: `path "${MOUNT}/creds/orders" { capabilities = ["read"] }`,
  });
  await ask('POST', `auth/token/roles/${TOKEN_ROLE}`, {
    allowed_policies: [TOKEN_ROLE],
    orphan: true,
    token_type: 'service',
    token_no_default_policy: true,
  });
  return {
    backend: {
      kind: 'vault',
      address,
      auth: { method: 'token', token_file: resolve(tokenFile) },
      token_role: TOKEN_ROLE,
    },
    settings: { engine: 'database', mount: MOUNT, role: 'orders', host, port, database, probe: { tls: false } },
  };
}

/** The sample bundle with the one secret from that backend: a copy, made anew at each start. */
export function bundleThroughVault({ dataDir, backendName, settings }) {
  const bundle = join(resolve(dataDir), 'sample-vault/config');
  rmSync(bundle, { recursive: true, force: true });
  mkdirSync(bundle, { recursive: true, mode: 0o700 });
  cpSync(join(ROOT, 'config'), bundle, { recursive: true });
  const declared = { name: 'orders-db', backend: backendName, sensitivity: 'confidential', ttl_max: '1h', settings };
  writeFileSync(join(bundle, 'secrets/orders-db.yaml'), `${JSON.stringify(declared, null, 2)}\n`);
  return bundle;
}
