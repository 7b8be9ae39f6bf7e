import { AtBroker } from './at-broker.js';

const SAID = 'No team paymnts is declared; did you mean "payments"?';
const REVOCATION = { id: 'rev_a_1', done: true };

describe('a stop or a revocation of what nobody declared', () => {
  let at: AtBroker;
  let leases = 0;
  beforeEach(async () => {
    at = await AtBroker.open();
    leases = 0;
    at.answer = ({ method, body }) => {
      const preview = { agents: [], tasks: [], leases, credentials: 0, resources: [], at_least: false };
      const revoked = { preview, warnings: [SAID, 'and another'], unknown: [SAID] };
      if (method === 'GET') return { body: REVOCATION };
      return { body: body['dry_run'] ? revoked : { ...revoked, revocation: REVOCATION } };
    };
  });
  afterEach(() => at.close());

  const act = (verb: string, ...more: string[]) => at.mayfly(verb, 'team=paymnts', '--reason', 'x', '--yes', ...more);
  const acted = () => at.asked.some(({ method, body }) => method === 'POST' && !body['dry_run']);

  it.each(['stop', 'revoke'])(
    'is not done by %s --yes: what may be meant is told, and what acts all the same',
    async (verb) => {
      const { code, err } = await act(verb);
      expect([code, err]).toEqual([1, expect.stringContaining(`Nothing was done: ${SAID} Add --undeclared`)]);
      expect(acted()).toBe(false);
    },
  );

  it.each(['stop', 'revoke'])('is done by %s --yes --undeclared', async (verb) => {
    const { code, err } = await act(verb, '--undeclared');
    expect([code, err]).toEqual([0, expect.stringContaining(`Warning: ${SAID}`)]);
    expect(acted()).toBe(true);
  });

  it('is done when something live has the name: it is not mistyped then', async () => {
    leases = 1;
    expect((await act('stop')).code).toBe(0);
    expect(acted()).toBe(true);
  });

  it('is told where nobody is there to be asked', async () => {
    const { code, err } = await at.mayfly('stop', 'team=paymnts', '--reason', 'x');
    expect([code, err]).toEqual([1, expect.stringMatching(/Warning: No team paymnts[\s\S]*Nothing was done/)]);
  });
});
