import { discoverAuthorizationServerMetadata as discoverByClient } from '@modelcontextprotocol/client';
import { discoverAuthorizationServerMetadata as discoverBySdk } from '@modelcontextprotocol/sdk/client/auth.js';
import { ISSUER } from '../fakes/parts.js';
import { type OpenDoor, openDoor } from './open-door.js';

describe('our metadata, read by the MCP SDKs as they are', () => {
  let open: OpenDoor;
  /** The issuer's name is not where the test listens. */
  const fetchFn = (url: string | URL, init?: RequestInit) => fetch(String(url).replace(ISSUER, open.url), init);

  beforeAll(async () => {
    open = await openDoor();
  });

  afterAll(() => open.close());

  it.each([
    ['sdk 1.x', discoverBySdk],
    ['client 2.x', discoverByClient],
  ])('%s finds the token endpoint, the grants and the client authentication', async (_, discover) => {
    const metadata = await discover(ISSUER, { fetchFn });
    expect(metadata).toMatchObject({
      issuer: ISSUER,
      token_endpoint: `${ISSUER}/oauth2/token`,
      jwks_uri: `${ISSUER}/.well-known/jwks.json`,
      response_types_supported: ['none'],
      grant_types_supported: expect.arrayContaining(['client_credentials']),
      token_endpoint_auth_methods_supported: ['spiffe_jwt', 'spiffe_x509'],
    });
  });
});
