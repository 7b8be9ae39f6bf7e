import { keepsItsPromises } from './backends/cases.js';
import { rowsOf } from './backends/rows.js';

for (const [kind, harness] of rowsOf('real')) keepsItsPromises(kind, harness);
