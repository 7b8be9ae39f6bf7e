import { FakeIssuer, makeKey, ProofMaker, signJws } from '../../../fakes/issuer.js';
import { AtBroker } from './at-broker.js';

const ORDERS = 'https://orders.example';

/* `mayfly verify`, in front of an issuer with a feed: what it says of a token that a tool would not take. */
describe('mayfly verify', () => {
  let at: AtBroker;
  let issuer: FakeIssuer;
  const verify = (token: string, ...more: string[]) => at.mayfly('verify', '--audience', ORDERS, ...more, token);

  beforeEach(async () => {
    at = await AtBroker.open();
    issuer = await new FakeIssuer().start();
    issuer.nowMs = Date.now();
    process.env['MAYFLY_ADDR'] = issuer.url;
  });
  afterEach(async () => {
    await at.close();
    await issuer.stop();
  });

  it('of a good token says who, which task, which tools, and whether its calls are decided one by one', async () => {
    const good = await verify(issuer.mint(), '-o', 'json');
    expect([good.code, good.err, JSON.parse(good.out)]).toEqual([
      0,
      '',
      expect.not.objectContaining({ calls: expect.anything() }),
    ]);
    const decided = await verify(issuer.mint(issuer.claims({ mayfly: { call: true } })), '-o', 'json');
    expect([decided.code, JSON.parse(decided.out).calls]).toEqual([0, 'each needs the decision point of the tool']);
  });

  it.each<[string, string, (own: FakeIssuer) => string, string[]]>([
    [
      'audience',
      `the token is for https://b.example, and what was asked for is one for ${ORDERS}.`,
      (own) => own.mint(own.claims({ aud: 'https://b.example' })),
      [],
    ],
    ['tool', 'the token carries orders.read, and not orders.refund.', (own) => own.mint(), ['--tool', 'orders.refund']],
    [
      'tool',
      'the token carries no tool, and not orders.read.',
      (own) => own.mint(own.claims({ scope: '' })),
      ['--tool', 'orders.read'],
    ],
    [
      'header',
      'this is no task token but a JWT of another kind: its typ is JWT. An SVID is none.',
      (own) => signJws({ typ: 'JWT', alg: 'ES256', kid: 'key-1' }, own.claims(), makeKey()),
      [],
    ],
    [
      'kid',
      'no key of URL has signed it; its issuer is https://other.example, as it says.',
      (own) => own.mint(own.claims({ iss: 'https://other.example' }), { key: makeKey() }),
      [],
    ],
    [
      'payload',
      'the token is from https://other.example, and what was asked for is one from URL.',
      (own) => own.mint(own.claims({ iss: 'https://other.example' })),
      [],
    ],
    ['spelling', 'this is no token: what is expected is a token as it was given, a compact JWS', () => 'nonsense', []],
    [
      'dpop',
      'the token is bound to a key, and without its holder nobody can show a proof for it.',
      (own) => own.mint(own.claims({ cnf: { jkt: new ProofMaker().jkt } })),
      [],
    ],
    [
      'expired',
      'the token expired at 2001-09-09T01:46:40.000Z.',
      (own) => own.mint(own.claims({ iat: 999_999_900, exp: 1_000_000_000 })),
      [],
    ],
  ])('of one that is refused for its %s says: %s', async (reason, words, make, more) => {
    const { code, out, err } = await verify(make(issuer), ...more);
    expect([code, out]).toEqual([3, '']);
    expect(err).toContain(`Refused: ${words.replace('URL', issuer.url)}`);
    expect(err).toMatch(new RegExp(` \\(${reason}\\)\\n$`));
  });

  it('gives the verdict first, and what the broker knows of a dead token after it', async () => {
    const claims = issuer.claims();
    issuer.revoke({ task: claims.mayfly.path[0] as string });
    issuer.on('POST /v1/why', () => ({ body: { because: ['the task was completed'] } }));
    const old = { ...claims, mayfly: { ...claims.mayfly, pos: `${issuer.epoch}-0-0` } };
    const { code, err } = await verify(issuer.mint(old));
    expect([code, err]).toEqual([3, 'Refused: the token was revoked. (revoked)\n  the task was completed\n']);
  });

  it('says at once who may not read the feed, and that nothing was checked', async () => {
    const detail = 'Only the owners of an audience read the feed.';
    issuer.on('GET /v1/feed', () => ({ status: 403, body: { code: 'denied', detail } }));
    const { code, out, err } = await verify(issuer.mint());
    expect([code, out, err]).toEqual([
      2,
      '',
      `Nothing was checked: this identity cannot read the feed of revocations: the broker answered 403 to the feed's reader: ${detail} (not-ready)\n`,
    ]);
    expect(issuer.seen.filter(({ path }) => path === '/v1/feed')).toHaveLength(1);
  });

  it('of a living token that is refused does not ask what speaks for it', async () => {
    await verify(issuer.mint(issuer.claims({ aud: 'https://b.example' })));
    expect(issuer.seen.filter(({ path }) => path.includes('why'))).toEqual([]);
  });
});
