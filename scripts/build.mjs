// npm run build: `dist` from the sources, when it is stale.
import { orOneLine, prepare } from './prepare.mjs';

await orOneLine(() => prepare());
