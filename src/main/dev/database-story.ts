import { setTimeout as delay } from 'node:timers/promises';
import { Client } from 'pg';
import type { Mayfly } from '../../client/mayfly.js';

export interface DatabaseStory {
  url: string;
  /** A fresh identity of the agent. */
  identity: () => string;
  task: string;
  /** Somebody who may read the audit log. */
  auditor: Mayfly;
  /** Asks again where the answer is 503. */
  again: (ask: () => Promise<Response>) => Promise<Response>;
  steps: (line: string) => void;
  say: (line: string) => void;
}

const SECRET = 'orders-db';
const CUT_TIMEOUT_MS = 15_000;
const CONFIRMED_TIMEOUT_MS = 15_000;
const POLL_MS = 20;

/** The part of the story that PostgreSQL plays: a user for one task, a query as that user, and what PostgreSQL says to it afterwards. */
export async function useDatabase({
  url,
  identity,
  task,
  auditor,
  again,
  steps,
  say,
}: DatabaseStory): Promise<{ seeItDie(): Promise<void> }> {
  const reply = await again(() =>
    fetch(`${url}/v1/secrets/${SECRET}`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${identity()}`, 'Content-Type': 'application/json' },
      body: JSON.stringify({ task }),
    }),
  );
  const answer = (await reply.json()) as Answer;
  if (!reply.ok) throw new Error(`no database user: ${answer.detail ?? reply.status}`);
  const { host, port, database, username, password } = answer.data;
  const login = { host, port, database, user: username, password, connectionTimeoutMillis: 5_000 };
  steps(`it got a database user of its own: ${username}, for ${answer.lease_duration} s (lease ${answer.lease_id})`);

  const client = new Client(login);
  const cut = new Promise<string>((resolve) => {
    client.on('error', (error) => resolve(codeOf(error)));
    client.on('end', () => resolve('closed'));
  });
  await client.connect();
  const { rows } = await client.query<{ status: string }>('select status from orders where id = $1', [42]);
  steps(`as that user it read order 42 in PostgreSQL: ${rows[0]?.status}; the connection stays open`);

  return {
    async seeItDie() {
      const how = await within(cut, CUT_TIMEOUT_MS, 'the connection was not cut');
      steps(`PostgreSQL cut the open connection (${how})`);
      steps(`and refuses the next login itself: ${await refusalOf(login)}`);
      await tellRecords(auditor, answer.lease_id, { steps, say });
    },
  };
}

interface Answer {
  detail?: string;
  lease_id: string;
  lease_duration: number;
  data: { host: string; port: number; database: string; username: string; password: string };
}

/** What the audit log has of the credential, once its death is on record. */
async function tellRecords(
  auditor: Mayfly,
  lease: string,
  { steps, say }: Pick<DatabaseStory, 'steps' | 'say'>,
): Promise<void> {
  const untilMs = performance.now() + CONFIRMED_TIMEOUT_MS;
  for (;;) {
    const { items } = await auditor.audit({ lease, limit: 50 });
    const death = items.find(({ type }) => type === 'credential.revoked');
    if (death) {
      steps(`its death is confirmed and on record: ${String(death.detail?.['evidence'] ?? 'confirmed')}`);
      for (const { at, type, effect } of items.reverse())
        say(`${' '.repeat(13)}${at}  ${type}${effect ? ` (${effect})` : ''}`);
      return;
    }
    if (performance.now() > untilMs) throw new Error('the death of the database user was not confirmed');
    await delay(POLL_MS);
  }
}

async function refusalOf(login: ConstructorParameters<typeof Client>[0]): Promise<string> {
  const again = new Client(login);
  again.on('error', () => undefined);
  try {
    await again.connect();
  } catch (error) {
    return error instanceof Error
      ? `${error.message.replace(/^role "[^"]*"/, 'its role')} (${codeOf(error)})`
      : 'refused';
  }
  await again.end();
  throw new Error('PostgreSQL let the user in although its task is over');
}

function codeOf(error: Error): string {
  const { code } = error as { code?: unknown };
  return typeof code === 'string' ? code : error.message;
}

async function within<Value>(waited: Promise<Value>, timeoutMs: number, problem: string): Promise<Value> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(problem)), timeoutMs);
  });
  try {
    return await Promise.race([waited, late]);
  } finally {
    clearTimeout(timer);
  }
}
