import { postgres } from './postgres.js';

/** Every kind of backend, one line each. */
export const backendKinds = {
  postgres,
};

export type BackendKind = keyof typeof backendKinds;
