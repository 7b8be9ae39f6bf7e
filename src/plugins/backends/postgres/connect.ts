import { readFile } from 'node:fs/promises';
import { checkServerIdentity } from 'node:tls';
import pg from 'pg';
import { BackendProblem } from '../contract.js';
import type { PostgresConfig } from './config.js';
import { problemOf } from './problems.js';

const CONNECT_TIMEOUT_MS = 2_000;

export interface Login {
  user: string;
  database: string;
  password: string;
}

/** What the server itself stops, so that nothing of ours goes on there after we have given up. */
export interface ServerLimits {
  statementMs: number;
  lockMs: number;
}

/**
 * One session at the server, with nothing taken from the environment (PGHOST, PGOPTIONS, ~/.pgpass). Throws what pg throws; whoever calls puts it in
 * our words, or looks at its SQLSTATE.
 */
export async function logIn(config: PostgresConfig, login: Login, limits: ServerLimits): Promise<pg.Client> {
  const client = new pg.Client({
    ...login,
    host: config.host,
    port: config.port,
    ssl: config.tls ? await tlsOptions(config.host, config.tls) : false,
    enableChannelBinding: config.tls !== undefined,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    application_name: 'mayfly',
    // Set here, settings of the role or of the database come second: `search_path`, so that no schema of others is looked into.
    options: Object.entries({
      search_path: 'pg_catalog',
      statement_timeout: limits.statementMs,
      lock_timeout: limits.lockMs,
      idle_in_transaction_session_timeout: limits.statementMs,
      createrole_self_grant: '',
      standard_conforming_strings: 'on',
      client_min_messages: 'error',
    })
      .map(([name, value]) => `-c ${name}=${value}`)
      .join(' '),
  });
  refuseToTell(client);
  // A session that ends while nobody asks is noticed by the next who does.
  client.on('error', () => {});
  try {
    await client.connect();
    return client;
  } catch (error) {
    cut(client);
    throw error;
  }
}

/** The password is proven (SCRAM), never sent: not even a server that was mistaken for ours learns it. */
function refuseToTell(client: pg.Client): void {
  const refuse = () => {
    const problem = new BackendProblem(
      'misconfigured',
      'The server wants passwords sent instead of proven by SCRAM-SHA-256',
    );
    (client as unknown as { connection: { emit(name: 'error', error: Error): void } }).connection.emit(
      'error',
      problem,
    );
  };
  Object.assign(client, { _handleAuthCleartextPassword: refuse, _handleAuthMD5Password: refuse });
}

/** Ends a session at once, whatever it is doing: what we sent may still happen there, until a limit stops it. */
export function cut(client: pg.Client): void {
  const { stream } = (client as unknown as { connection: { stream: { destroy(): void } } }).connection;
  stream.destroy();
}

/** A manager logs in with what its file says now: it may have been changed. */
export async function passwordOf(manager: PostgresConfig['managers'][number]): Promise<string> {
  try {
    return (await readFile(manager.password_file, 'utf8')).trim();
  } catch {
    throw new BackendProblem('misconfigured', `The password file of the manager ${manager.user} cannot be read`, {
      isSure: true,
    });
  }
}

async function tlsOptions(host: string, tls: NonNullable<PostgresConfig['tls']>) {
  const read = async (path: string | undefined) => (path === undefined ? undefined : await readPem(path));
  const [ca, cert, key] = await Promise.all([read(tls.ca_file), read(tls.cert_file), read(tls.key_file)]);
  const name = tls.server_name ?? host;
  return {
    minVersion: 'TLSv1.2' as const,
    rejectUnauthorized: true,
    // pg names the server to TLS by its host, and by nothing when that is an address: then Node would compare with "localhost".
    checkServerIdentity: (_: string, certificate: Parameters<typeof checkServerIdentity>[1]) =>
      checkServerIdentity(name, certificate),
    ...(ca !== undefined && { ca }),
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key }),
  };
}

async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    throw new BackendProblem('misconfigured', `The file ${path} cannot be read`, { isSure: true });
  }
}

/** A statement that a session keeps, so that it is planned once. */
export interface Prepared {
  name: string;
  text: string;
  values: unknown[];
}

interface Answer {
  rows: Record<string, unknown>[];
}

/**
 * Sends one text, which may hold several statements, and returns the rows of each. Values are in the text already (sql.ts): several statements in
 * one message are one round trip, and no step of ours lies between them.
 */
export async function ask(
  client: pg.Client,
  sql: string | Prepared,
  timeoutMs: number,
): Promise<Record<string, unknown>[][]> {
  let timer: NodeJS.Timeout | undefined;
  try {
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        cut(client);
        reject(new BackendProblem('timeout', 'PostgreSQL did not answer in time'));
      }, timeoutMs);
    });
    const answers = (await Promise.race([client.query(sql as string), late])) as unknown as Answer | Answer[];
    return (Array.isArray(answers) ? answers : [answers]).map(({ rows }) => rows);
  } finally {
    clearTimeout(timer);
  }
}

/** A short session for one thing; problems come in our words. */
export async function withSession<T>(
  config: PostgresConfig,
  login: Login,
  limits: ServerLimits,
  doing: string,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  let client: pg.Client | undefined;
  try {
    client = await logIn(config, login, limits);
    return await work(client);
  } catch (error) {
    throw problemOf(error, doing);
  } finally {
    if (client) cut(client);
  }
}
