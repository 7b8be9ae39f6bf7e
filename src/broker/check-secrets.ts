import type { Bundle, SecretDeclaration } from '../core/bundle.js';
import type { EpochMs } from '../core/time.js';
import type { Parts, SecretChecks } from './parts.js';

interface Entry {
  declaration: SecretDeclaration;
  /** Changes with anything that the try depends on. */
  key: string;
  problem: string | undefined;
  failures: number;
  dueAtMs: EpochMs;
  trying: Promise<void> | undefined;
}

const NOT_TRIED = 'it has not been tried yet';
const CHECK_TIMEOUT_MS = 30_000;
const RETRY_MS = 1_000;
const RETRY_MS_MAX = 60_000;

export function secretChecks(parts: Pick<Parts, 'backends' | 'policies' | 'clock' | 'observe'>): SecretChecks {
  const entries = new Map<string, Entry>();
  let takenUp: Bundle | undefined;

  function takeUp(): void {
    const bundle = parts.policies.current()?.bundle;
    if (!bundle || bundle === takenUp) return;
    takenUp = bundle;
    for (const name of entries.keys()) if (!bundle.secrets.has(name)) entries.delete(name);
    for (const declaration of bundle.secrets.values()) {
      const key = JSON.stringify([declaration.backend, declaration.settings]);
      const known = entries.get(declaration.name);
      if (known?.key === key) known.declaration = declaration;
      else entries.set(declaration.name, { ...NEW, declaration, key });
    }
  }

  /** One try at a time per secret; whoever comes meanwhile waits for the one under way. */
  function tryOut(entry: Entry): Promise<void> {
    entry.trying ??= findProblem(parts, entry.declaration)
      .then(({ problem, isFinal }) => note(entry, problem, isFinal))
      .finally(() => {
        entry.trying = undefined;
      });
    return entry.trying;
  }

  function note(entry: Entry, problem: string | undefined, isFinal: boolean): void {
    const { name, backend } = entry.declaration;
    if (problem !== entry.problem) {
      // What was never configured here is no alarm.
      const level = problem === undefined ? 'info' : isFinal ? 'warn' : 'error';
      const event = problem === undefined ? 'secret.open' : 'secret.closed';
      parts.observe({ event, level, name, backend, ...(problem !== undefined && { problem }) });
    }
    entry.problem = problem;
    entry.failures = problem === undefined ? 0 : entry.failures + 1;
    const waitMs = Math.min(RETRY_MS * 2 ** (entry.failures - 1), RETRY_MS_MAX);
    entry.dueAtMs = problem === undefined || isFinal ? Number.POSITIVE_INFINITY : parts.clock.now() + waitMs;
  }

  // A backend that answers again is not kept waiting for the next slow try.
  for (const { name, guard } of parts.backends.all()) {
    guard?.onBack(() => {
      for (const entry of entries.values()) {
        if (entry.declaration.backend === name && Number.isFinite(entry.dueAtMs)) entry.dueAtMs = 0;
      }
    });
  }

  return {
    problemOf(secret) {
      takeUp();
      const entry = entries.get(secret);
      return entry ? entry.problem : 'it is not declared';
    },
    status: () => {
      takeUp();
      return [...entries.values()].map(({ declaration: { name, backend }, problem }) => ({
        name,
        backend,
        ...(problem !== undefined && { problem }),
      }));
    },
    async tick() {
      takeUp();
      const nowMs = parts.clock.now();
      await Promise.all([...entries.values()].filter((entry) => entry.dueAtMs <= nowMs).map(tryOut));
    },
    async checkBackend(backend) {
      takeUp();
      const ofBackend = [...entries.values()].filter(({ declaration }) => declaration.backend === backend);
      await Promise.all(ofBackend.map(tryOut));
    },
  };
}

const NEW = { problem: NOT_TRIED, failures: 0, dueAtMs: 0, trying: undefined } as const;

/** `isFinal`: trying again cannot help, only another bundle or configuration. */
async function findProblem(
  { backends }: Pick<Parts, 'backends'>,
  { name, backend: backendName, settings }: SecretDeclaration,
): Promise<{ problem: string | undefined; isFinal: boolean }> {
  const backend = backends.get(backendName);
  if (!backend) return { problem: `this broker has no backend ${backendName}`, isFinal: true };
  const read = backend.secretSettings.safeParse(settings);
  if (!read.success) return { problem: settingsProblems(read.error).join('; '), isFinal: true };
  try {
    const problems = await backend.check({ name, settings: read.data }, AbortSignal.timeout(CHECK_TIMEOUT_MS));
    return { problem: problems.length === 0 ? undefined : problems.join(' '), isFinal: false };
  } catch (error) {
    return { problem: error instanceof Error ? error.message : 'it could not be tried', isFinal: false };
  }
}

/** What is wrong with the settings of a bundle's secrets, as far as this broker has their backends; each with its field. */
export function problemsOfSettings({ backends }: Pick<Parts, 'backends'>, bundle: Bundle): string[] {
  return [...bundle.secrets.values()].flatMap(({ name, backend, settings }) => {
    const read = backends.get(backend)?.secretSettings.safeParse(settings);
    if (!read || read.success) return [];
    return settingsProblems(read.error).map((problem) => `secret ${name}: ${problem} (backend ${backend})`);
  });
}

interface Issue {
  path: PropertyKey[];
  message: string;
}

function settingsProblems(error: { issues: Issue[] }): string[] {
  return error.issues.map(({ path, message }) => `${['settings', ...path.map(String)].join('.')}: ${message}`);
}
