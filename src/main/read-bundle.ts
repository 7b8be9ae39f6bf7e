import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { BrokerError } from '../core/errors.js';
import { isBundleFile } from '../plugins/policy/bundle.js';

/**
 * The bundle as it is written below a folder: path (with `/`) to content; only what a bundle is made of. Links are followed: a folder that
 * Kubernetes mounts holds nothing else, and has its real files in hidden folders beside them.
 */
export async function readBundle(dir: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  const read = async (folder: string, depth: number): Promise<void> => {
    for (const name of (await readdir(join(dir, folder))).sort()) {
      if (name.startsWith('.')) continue;
      const path = folder === '' ? name : `${folder}/${name}`;
      const found = await stat(join(dir, path));
      if (found.isDirectory() && depth < DEPTH_MAX) await read(path, depth + 1);
      else if (found.isFile() && isBundleFile(path)) files[path] = await readFile(join(dir, path), 'utf8');
    }
  };
  try {
    await read('', 0);
  } catch (cause) {
    throw new BrokerError('bundle_invalid', `The bundle folder ${dir} cannot be read.`, { cause });
  }
  if (!Object.keys(files).some((path) => path.endsWith('.cedar'))) {
    throw new BrokerError('bundle_invalid', `The folder ${dir} is no bundle: it holds no policy (policies/*.cedar).`);
  }
  return Object.fromEntries(Object.entries(files).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** A link may lead back to where it is. */
const DEPTH_MAX = 8;
