// npm start: installs and builds what is missing, brings up a real PostgreSQL for the sample secret, then becomes `mayfly dev` with whatever
// arguments were given.
//   --no-postgres   go without PostgreSQL
// MAYFLY_VAULT_ADDR and MAYFLY_VAULT_TOKEN_FILE: the sample's database users come through that Vault or OpenBao (a development server).
import { fileURLToPath } from 'node:url';
import { orOneLine, Preparation, prepare } from './prepare.mjs';

const HELP = `npm start brings up a real PostgreSQL too, for the sample secret orders-db.
  --no-postgres  go without it
With MAYFLY_VAULT_ADDR and MAYFLY_VAULT_TOKEN_FILE its users come through that development Vault or OpenBao.

`;

await orOneLine(async () => {
  prepare();
  const words = process.argv.slice(2).filter((word) => word !== '--no-postgres');
  const isHelp = words.some((word) => word === '--help' || word === '-h');
  if (isHelp) process.stdout.write(HELP);
  const isWanted =
    !isHelp &&
    !words.includes('--dry-run') &&
    !process.argv.includes('--no-postgres') &&
    !words.some((word) => word.startsWith('--backends'));
  if (isWanted && !(await mayStart(words))) return;
  const database = isWanted ? await sampleDatabase(words) : undefined;
  // In this very process: signals reach the broker once, and directly.
  const backends = database ? ['--backends', database.backendsFile] : [];
  if (database?.bundleDir) backends.push('--bundle', database.bundleDir);
  process.argv.splice(
    1,
    Infinity,
    fileURLToPath(new URL('../bin/mayfly.js', import.meta.url)),
    'dev',
    ...words,
    ...backends,
  );
  try {
    await import('../bin/mayfly.js');
  } finally {
    await database?.stop();
  }
});

/**
 * Whoever mistyped an option, or runs a broker here already, is told before a PostgreSQL is brought up. From then on the folder is ours alone. Our own
 * word comes first: behind an option whose value was forgotten it would be that value.
 */
async function mayStart(words) {
  const { run } = await import('../dist/main/cli/program.js');
  await run([process.execPath, 'mayfly', 'dev', '--own', ...words]);
  return !process.exitCode;
}

/** Without it everything but the sample secret works, so what is in its way is said and the start goes on. */
async function sampleDatabase(words) {
  const say = (line) => process.stdout.write(`${line}\n`);
  try {
    const { startSampleDatabase } = await import('./sample-database.mjs');
    return await startSampleDatabase({ dataDir: dataDirOf(words), say, vault: vaultOf(process.env) });
  } catch (error) {
    if (process.env.MAYFLY_VAULT_ADDR) throw new Preparation(error.message);
    process.stderr.write(`mayfly: going without PostgreSQL: ${error.message}\n`);
    return undefined;
  }
}

/** As `mayfly dev` reads it. */
function dataDirOf(words) {
  const said = words.map((word, at) => (word === '--data' ? words[at + 1] : /^--data=(.*)$/s.exec(word)?.[1]));
  return said.findLast((dir) => dir !== undefined) ?? (process.env.MAYFLY_DATA || '.data');
}

/** A Vault that was named has to be the one that is used, so what is wrong with it ends the start. */
function vaultOf({ MAYFLY_VAULT_ADDR: address, MAYFLY_VAULT_TOKEN_FILE: tokenFile }) {
  if (!address) return undefined;
  if (!tokenFile)
    throw new Preparation(
      'MAYFLY_VAULT_ADDR needs MAYFLY_VAULT_TOKEN_FILE: a file with a token of that development server',
    );
  return { address: address.replace(/\/$/, ''), tokenFile };
}
