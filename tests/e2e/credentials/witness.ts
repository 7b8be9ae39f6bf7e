import type { TestServer } from '../../backends/postgres/server.js';

const LOOK_EVERY_MS = 250;

/** Looks at PostgreSQL as its superuser, past every proxy: which of our roles there are, and from when to when. */
export class Witness {
  readonly #postgres: TestServer;
  readonly #seen = new Map<string, { oid: string; firstMs: number; lastMs: number }>();
  readonly #outages: { fromMs: number; untilMs: number }[] = [];
  #looking: NodeJS.Timeout | undefined;

  constructor(postgres: TestServer) {
    this.#postgres = postgres;
  }

  watch(): void {
    this.#looking = setInterval(() => void this.look().catch(() => {}), LOOK_EVERY_MS);
  }

  stop(): void {
    clearInterval(this.#looking);
  }

  /** Roles of ours that exist now. */
  async look(): Promise<string[]> {
    const nowMs = performance.now();
    const rows = await this.#postgres.ask(
      "SELECT oid::text, rolname FROM pg_roles WHERE replace(rolname, '-', '_') LIKE '%mayfly\\_%\\_a\\_%'",
    );
    for (const row of rows) {
      const name = nameOf(row);
      const known = this.#seen.get(name);
      if (known) known.lastMs = nowMs;
      else this.#seen.set(name, { oid: String(row['oid']), firstMs: nowMs, lastMs: nowMs });
    }
    return rows.map(nameOf);
  }

  /** Whatever was ever seen of a lease: its name is in the role's. */
  seen(leaseId: string) {
    const name = leaseId.slice('lse_'.length);
    return [...this.#seen].find(([role]) => role.includes(name))?.[1];
  }

  /** Sessions of a role that may be gone already: a dropped role's session goes on under its oid. */
  async sessions(oid: string): Promise<number> {
    const rows = await this.#postgres.ask(
      `SELECT count(*)::int AS n FROM pg_stat_get_activity(NULL) WHERE usesysid = ${oid}`,
    );
    return Number(rows[0]?.['n']);
  }

  /** Something that revocation needs is not there from now on, until what is returned is called. */
  beginOutage(): () => void {
    const outage = { fromMs: performance.now(), untilMs: Number.POSITIVE_INFINITY };
    this.#outages.push(outage);
    return () => {
      outage.untilMs = performance.now();
    };
  }

  /** How long it existed after `sinceMs`, not counting the time in which nobody could do anything about it. */
  livedOnMs(leaseId: string, sinceMs: number): number {
    return this.countedMs(sinceMs, this.seen(leaseId)?.lastMs ?? sinceMs);
  }

  /** From then to then, without the outages. */
  countedMs(sinceMs: number, untilMs: number): number {
    const away = this.#outages.map((one) =>
      Math.max(0, Math.min(one.untilMs, untilMs) - Math.max(one.fromMs, sinceMs)),
    );
    return Math.max(0, untilMs - sinceMs - away.reduce((sum, ms) => sum + ms, 0));
  }
}

/** A Vault makes of our name one with hyphens. */
function nameOf(row: Record<string, unknown>): string {
  return String(row['rolname']).replaceAll('-', '_').toLowerCase();
}
