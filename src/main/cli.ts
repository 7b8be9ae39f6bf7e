import { endProcess, endWithReader } from './cli/closed-output.js';
import { report } from './cli/output.js';
import { run } from './cli/program.js';

endWithReader({ stdout: process.stdout, stderr: process.stderr, end: (lost) => endProcess(report(lost)) });
await run(process.argv);
