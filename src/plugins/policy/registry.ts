import { cedar } from './cedar.js';

/** The policy engines, one line each. */
export const policyEngines = { cedar } as const;
