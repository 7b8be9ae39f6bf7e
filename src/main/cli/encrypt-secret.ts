import { Command } from 'commander';

import { say, UsageError } from './output.js';

const VALUE_BYTES_MAX = 32 * 1024;
const CELL = /^[a-z0-9]{1,8}$/;

interface EncryptFlags {
  name: string;
  config?: string;
  rootKeyFile?: string;
  cell: string;
}

/** `mayfly secret encrypt` */
export function encryptCommand(): Command {
  return new Command('encrypt')
    .description(
      'encrypt a value under the root key, for a backend of kind static: the value on standard input, what the file has to hold on standard output',
    )
    .requiredOption(
      '--name <name>',
      'of the value, and of its file: what is encrypted for one name is refused as another',
    )
    .option('--config <file>', 'the broker’s configuration: its root key and cell are used')
    .option('--root-key-file <file>', 'instead of a configuration', process.env['MAYFLY_ROOT_KEY_FILE'])
    .option('--cell <cell>', 'beside --root-key-file', process.env['MAYFLY_CELL'] ?? 'a')
    .action(encrypt);
}

async function encrypt(flags: EncryptFlags): Promise<void> {
  const { valueNameProblem } = await import('../../plugins/backends/static.js');
  const { Encryption } = await import('../../state/encryption.js');
  const problem = valueNameProblem(flags.name);
  if (problem !== undefined) throw new UsageError(`--name ${problem}.`);
  const { rootKey, cell } = await keyOf(flags);
  if (process.stdin.isTTY) say('Paste the value and end it with Ctrl-D.');
  const value = await readValue(process.stdin);
  const encrypted = new Encryption(rootKey, cell).encrypt('backend', flags.name, value);
  process.stdout.write(`${encrypted}\n`);
}

async function keyOf({ config, rootKeyFile, cell }: EncryptFlags): Promise<{ rootKey: Uint8Array; cell: string }> {
  const { loadConfig, readRootKey } = await import('../config.js');
  if (config !== undefined) {
    const loaded = loadConfig({ file: config, env: process.env });
    return { rootKey: readRootKey(loaded.root_key_file), cell: loaded.cell };
  }
  if (rootKeyFile === undefined) throw new UsageError('Say which root key: --config FILE or --root-key-file FILE.');
  if (!CELL.test(cell)) throw new UsageError('--cell has to be 1 to 8 lower-case letters and digits.');
  return { rootKey: readRootKey(rootKeyFile), cell };
}

/** A value, without the line's end that a shell or an editor puts behind it. */
async function readValue(input: AsyncIterable<Buffer | string>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of input) {
    bytes += chunk.length;
    if (bytes > VALUE_BYTES_MAX) throw new UsageError(`The value is longer than ${VALUE_BYTES_MAX / 1024} KiB.`);
    chunks.push(Buffer.from(chunk));
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks));
  } catch {
    throw new UsageError('The value is not UTF-8 text.');
  }
  const value = text.replace(/\r?\n$/, '');
  if (value === '') throw new UsageError('There is no value on standard input.');
  return Buffer.from(value);
}
