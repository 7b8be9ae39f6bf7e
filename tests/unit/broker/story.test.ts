import { playStory } from '../../../src/main/dev/story.js';
import { type FakeDoor, openFakeDoor } from '../../fakes/door.js';

describe('the story on the sample bundle', () => {
  let door: FakeDoor;

  beforeAll(async () => {
    door = await openFakeDoor();
  });

  afterAll(() => door.close());

  it('an agent is identified, gets a token for its task, uses it, and is refused once the task completed', async () => {
    const lines: string[] = [];
    await playStory({ url: door.url, trustDomain: door.trustDomain, say: (line) => lines.push(line) });

    expect(lines.join('\n')).toMatch(
      /let it in: spiffe:\/\/dev\.mayfly\/agent\/refunds may orders\.read[\s\S]*refuses the same token: revoked/,
    );
  });

  it('a token is marked `call` when policies constrain its single calls, so that no local check alone lets it in', async () => {
    const { url, trustDomain } = door;
    const svid = (path: string) => trustDomain.jwtSvid({ path, audience: url, ttlSeconds: 300 });
    const opened = await fetch(`${url}/v1/tasks`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${svid('/orchestrator/workflow')}`, 'Content-Type': 'application/json' },
      body: JSON.stringify({
        type: 'refund',
        params: { order_id: 42 },
        purpose: 'refund order 42',
        agents: ['spiffe://dev.mayfly/agent/refunds'],
      }),
    });
    const { id } = (await opened.json()) as { id: string };
    const marked = async (tool: string) => {
      const reply = await fetch(`${url}/oauth2/token`, {
        method: 'POST',
        body: new URLSearchParams({
          grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
          subject_token: svid('/agent/refunds'),
          subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
          resource: 'https://orders.example',
          scope: `task:${id} ${tool}`,
        }),
      });
      const { access_token: token } = (await reply.json()) as { access_token: string };
      return JSON.parse(Buffer.from(token.split('.')[1] as string, 'base64url').toString()).mayfly.call;
    };
    expect([await marked('orders.read'), await marked('orders.refund')]).toEqual([undefined, true]);
  });
});
