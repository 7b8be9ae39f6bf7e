import { readdir, readFile } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { BrokerError } from '../core/errors.js';
import { isBundleFile } from '../plugins/policy/bundle.js';

/** The bundle as it is written below a folder: path (with `/`) to content; only what a bundle is made of. */
export async function readBundle(dir: string): Promise<Record<string, string>> {
  let names: string[];
  try {
    const entries = await readdir(dir, { recursive: true, withFileTypes: true });
    names = entries.filter((entry) => entry.isFile()).map((entry) => relative(dir, join(entry.parentPath, entry.name)));
  } catch (cause) {
    throw new BrokerError('bundle_invalid', `The bundle folder ${dir} cannot be read.`, { cause });
  }
  const files: Record<string, string> = {};
  for (const name of names.map((one) => one.split(sep).join('/')).sort()) {
    if (isBundleFile(name)) files[name] = await readFile(join(dir, name), 'utf8');
  }
  return files;
}
