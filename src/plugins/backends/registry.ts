import { oauthBackend } from './oauth.js';
import { postgres } from './postgres.js';
import { staticBackend } from './static.js';
import { vault } from './vault.js';

/** Every kind of backend, one line each. */
export const backendKinds = {
  postgres,
  vault,
  oauth: oauthBackend,
  static: staticBackend,
};

export type BackendKind = keyof typeof backendKinds;
