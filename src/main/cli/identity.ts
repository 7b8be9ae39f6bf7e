import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { dataDir, devRuntime } from './connection.js';
import { secondsOf } from './option-values.js';
import { say, UsageError } from './output.js';

/** `mayfly dev svid /agent/x`: a development identity, signed here; no broker hands out identities. */
export function svidCommand(): Command {
  return new Command('svid')
    .description('print a JWT-SVID of the development trust domain, or write an X.509-SVID')
    .argument('<path>', 'such as /agent/refunds')
    .option('--audience <uri>', 'default: the running development broker')
    .option('--ttl <duration>', 'life', '5m')
    .option('--x509 <dir>', 'write svid.pem, key.pem and bundle.pem into a folder instead')
    .action(async (path: string, flags: { audience?: string; ttl: string; x509?: string }) => {
      const { openDevTrustDomain } = await import('../dev/trust-domain.js');
      const trustDomain = await openDevTrustDomain(dataDir());
      const ttlSeconds = secondsOf(flags.ttl, 'ttl');
      if (flags.x509 !== undefined) {
        const { certificatePem, keyPem } = await trustDomain.x509Svid({ path, ttlSeconds });
        mkdirSync(flags.x509, { recursive: true, mode: 0o700 });
        writeFileSync(join(flags.x509, 'svid.pem'), certificatePem);
        writeFileSync(join(flags.x509, 'key.pem'), keyPem, { mode: 0o600 });
        writeFileSync(join(flags.x509, 'bundle.pem'), trustDomain.caPem);
        say(`Wrote svid.pem, key.pem and bundle.pem to ${flags.x509}.`);
        return;
      }
      const audience = flags.audience ?? devRuntime()?.issuer;
      if (audience === undefined) throw new UsageError('No development broker runs here: say --audience URI.');
      process.stdout.write(`${trustDomain.jwtSvid({ path, audience, ttlSeconds })}\n`);
    });
}
