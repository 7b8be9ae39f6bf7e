import { endProcess, endWithReader } from './cli/closed-output.js';
import { run } from './cli/program.js';

endWithReader({ stdout: process.stdout, stderr: process.stderr, end: endProcess });
await run(process.argv);
