import { keepsItsPromises } from '../conformance/backends/cases.js';
import { rowsOf } from '../conformance/backends/rows.js';

for (const [kind, harness] of rowsOf('peers')) keepsItsPromises(kind, harness);
