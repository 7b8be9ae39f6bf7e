import { readFileSync } from 'node:fs';
import { transformSync } from '@swc/core';
import { createVerifier, type DecisionPoint, type Verifier } from '../../../src/client/verifier.js';
import { FakeIssuer } from '../../fakes/issuer.js';

const AUDIENCE = 'https://orders.example';
const GUIDE = readFileSync('docs/guides/protect-a-tool.md', 'utf8');

interface Shop {
  refunds: Map<number, string>;
  decisionPoint: DecisionPoint;
}

/** The guide's own words, run as they stand there. */
async function guideShop(): Promise<Shop> {
  const text = /<!-- test: decision-point\.ts -->\n```ts\n([\s\S]*?)```/.exec(GUIDE)?.[1] as string;
  const { code } = transformSync(text, { jsc: { target: 'es2022', parser: { syntax: 'typescript' } } });
  return import(`data:text/javascript,${encodeURIComponent(code)}`);
}

describe('the decision point of the guide', () => {
  let issuer: FakeIssuer;
  let verifier: Verifier;
  let shop: Shop;

  beforeAll(async () => {
    issuer = await new FakeIssuer().start();
    shop = await guideShop();
    verifier = createVerifier({
      issuer: issuer.url,
      audience: AUDIENCE,
      identity: { bearer: async () => 'svid' },
      clock: { now: () => issuer.nowMs },
      decisionPoint: shop.decisionPoint,
    });
    await verifier.ready();
  });

  afterAll(async () => {
    await verifier.close();
    await issuer.stop();
  });

  const claims = () =>
    issuer.claims({ scope: 'orders.read orders.refund orders.ship', mayfly: { call: true } as object });

  it('lets the calls through that policy leaves alone, and a refund for the order of its task', async () => {
    const own = claims();
    shop.refunds.set(42, own.mayfly.path[0] as string);
    const token = issuer.mint(own);
    await expect(verifier.verify(token, { tool: 'orders.read' })).resolves.toBeDefined();
    await expect(verifier.verify(token, { tool: 'orders.refund', arguments: { order_id: 42 } })).resolves.toBeDefined();
  });

  it.each<[string, string, unknown]>([
    ['another order', 'orders.refund', { order_id: 43 }],
    ['no arguments', 'orders.refund', undefined],
    ['no order', 'orders.refund', {}],
    ['an order as text', 'orders.refund', { order_id: '42' }],
    ['a tool it has no rule for', 'orders.ship', { order_id: 42 }],
  ])('refuses %s', async (_, tool, given) => {
    const own = claims();
    shop.refunds.set(42, own.mayfly.path[0] as string);
    await expect(verifier.verify(issuer.mint(own), { tool, arguments: given })).rejects.toMatchObject({
      code: 'denied',
    });
  });
});
