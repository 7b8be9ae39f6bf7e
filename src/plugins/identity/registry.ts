import { verifyJwtSvid } from './jwt-svid.js';
import { verifyOidc } from './oidc.js';
import { verifyX509Svid } from './x509-svid.js';

/** Every kind of proof of identity, one line each. Its bundle is looked up first; a kind only verifies. */
export const identityKinds = {
  'jwt-svid': { verify: verifyJwtSvid },
  'x509-svid': { verify: verifyX509Svid },
  oidc: { verify: verifyOidc },
};

export type IdentityKind = keyof typeof identityKinds;
