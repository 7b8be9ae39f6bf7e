import { postgres } from './postgres.js';
import { vault } from './vault.js';

/** Every kind of backend, one line each. */
export const backendKinds = {
  postgres,
  vault,
};

export type BackendKind = keyof typeof backendKinds;
