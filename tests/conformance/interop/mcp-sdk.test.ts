import {
  discoverAuthorizationServerMetadata as discoverByClient,
  discoverOAuthProtectedResourceMetadata as resourceByClient,
} from '@modelcontextprotocol/client';
import {
  discoverAuthorizationServerMetadata as discoverBySdk,
  discoverOAuthProtectedResourceMetadata as resourceBySdk,
} from '@modelcontextprotocol/sdk/client/auth.js';
import { type FakeDoor, openFakeDoor } from '../../fakes/door.js';

/* Both generations of the MCP SDK read what we say of ourselves, as they are: they insist on more members than RFC 8414 does. */

let door: FakeDoor;
beforeAll(async () => {
  door = await openFakeDoor();
});
afterAll(() => door.close());

describe.each([
  ['sdk 1.x', discoverBySdk, resourceBySdk],
  ['client 2.x', discoverByClient, resourceByClient],
])('%s', (_, discoverServer, discoverResource) => {
  it('finds the token endpoint, the grants and the client authentication', async () => {
    expect(await discoverServer(door.url)).toMatchObject({
      issuer: door.url,
      token_endpoint: `${door.url}/oauth2/token`,
      introspection_endpoint: `${door.url}/oauth2/introspect`,
      revocation_endpoint: `${door.url}/oauth2/revoke`,
      jwks_uri: `${door.url}/.well-known/jwks.json`,
      response_types_supported: ['none'],
      grant_types_supported: expect.arrayContaining(['client_credentials']),
      token_endpoint_auth_methods_supported: ['spiffe_jwt', 'spiffe_x509'],
    });
  });

  it('finds from the API which authorization server it trusts', async () => {
    expect(await discoverResource(door.url)).toMatchObject({
      resource: door.url,
      authorization_servers: [door.url],
      bearer_methods_supported: ['header'],
    });
  });
});
