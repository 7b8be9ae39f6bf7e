// The peer: npm's oidc-provider, private_key_jwt, ES256 JWT access tokens, on Redis. Prints its address when it listens.
import { generateKeyPairSync } from 'node:crypto';
import { Redis } from 'ioredis';
import Provider from 'oidc-provider';

const { REDIS_URL: redisUrl, CLIENT_JWK: clientJwk, PORT: port } = process.env;
const redis = redisUrl ? new Redis(redisUrl) : undefined;

/** As the project's own example does it: one key per model instance, with its expiry. */
class RedisAdapter {
  constructor(name) {
    this.name = name;
  }
  key(id) {
    return `oidc:${this.name}:${id}`;
  }
  async upsert(id, payload, expiresIn) {
    await redis.set(this.key(id), JSON.stringify(payload), 'EX', Math.max(1, expiresIn ?? 3600));
  }
  async find(id) {
    const text = await redis.get(this.key(id));
    return text ? JSON.parse(text) : undefined;
  }
  async consume() {}
  async destroy(id) {
    await redis.del(this.key(id));
  }
  async revokeByGrantId() {}
}

const issuer = `http://127.0.0.1:${port}`;
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const provider = new Provider(issuer, {
  ...(redis && { adapter: RedisAdapter }),
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig', kid: 'peer' }] },
  clients: [
    {
      client_id: 'agent',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: 'ES256',
      id_token_signed_response_alg: 'ES256',
      jwks: { keys: [JSON.parse(clientJwk)] },
    },
  ],
  enabledJWA: { clientAuthSigningAlgValues: ['ES256'] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => 'https://orders.example',
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: 'orders.read',
        accessTokenFormat: 'jwt',
        accessTokenTTL: 300,
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
});
provider.listen(Number(port), '127.0.0.1', () => process.stdout.write(`${issuer}\n`));
