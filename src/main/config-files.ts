import { accessSync, constants, statSync } from 'node:fs';
import { BrokerError } from '../core/errors.js';
import { type PairFiles, readPair } from './certificate-pair.js';
import { type Config, readRootKey, redisAddress } from './config.js';
import { readBundle } from './read-bundle.js';

/** Read by the start with demands of their own, which are asked here as the start asks them. */
const WITH_DEMANDS = ['root_key_file', 'redis.url_file', 'redis.cluster_file'];

/**
 * What is wrong with the files and folders that a configuration names, each by its key: missing, not readable by this user, a root key that others may
 * read, a certificate whose key is another's. Nobody is connected to, so addresses and sockets are taken as they are.
 */
export async function fileProblems(config: Config): Promise<string[]> {
  const problems: string[] = [];
  const tell = async (key: string, read: () => unknown) => {
    try {
      await read();
    } catch (error) {
      if (!(error instanceof BrokerError)) throw error;
      problems.push(error.message.startsWith(key) ? error.message : `${key}: ${error.message}`);
    }
  };
  await tell('root_key_file', () => readRootKey(config.root_key_file));
  await tell('redis', () => redisAddress(config));
  await tell('bundle.dir', () => readBundle(config.bundle.dir));
  for (const { key, path, isFolder } of named(config)) {
    const problem = WITH_DEMANDS.includes(key) ? undefined : problemOf(path, isFolder);
    if (problem !== undefined) problems.push(`${key}: ${path} ${problem}.`);
  }
  for (const [key, pair] of pairs(config)) {
    const areRead = [pair.cert_file, pair.key_file].every((path) => problemOf(path, false) === undefined);
    if (areRead) await tell(key, () => readPair(key, pair));
  }
  return problems;
}

/** Certificates with their keys, whoever shows them: a listener or a backend's client. */
function pairs(value: unknown, at: string[] = []): [string, PairFiles][] {
  if (typeof value !== 'object' || value === null) return [];
  const own = value as Partial<PairFiles>;
  const inner = Object.entries(value).flatMap(([name, one]) => pairs(one, [...at, name]));
  return own.cert_file && own.key_file ? [[at.join('.'), own as PairFiles], ...inner] : inner;
}

interface Named {
  key: string;
  path: string;
  isFolder: boolean;
}

/** By their keys: `…_file`, the `path` of a source of kind file, and the `dir` of a backend. */
function named(value: unknown, at: string[] = []): Named[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([name, inner]) => {
    const key = [...at, name];
    if (typeof inner !== 'string') return named(inner, key);
    const isFolder = name === 'dir' && at[0] === 'backends';
    const isFile = name.endsWith('_file') || (name === 'path' && 'kind' in value && value.kind === 'file');
    return isFile || isFolder ? [{ key: key.join('.'), path: inner, isFolder }] : [];
  });
}

function problemOf(path: string, isFolder: boolean): string | undefined {
  try {
    const found = statSync(path);
    if (isFolder !== found.isDirectory()) return isFolder ? 'is no folder' : 'is a folder';
    accessSync(path, constants.R_OK);
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'is not there' : 'cannot be read';
  }
}
