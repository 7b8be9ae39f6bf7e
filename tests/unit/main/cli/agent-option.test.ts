import { AtBroker } from './at-broker.js';

const REFUNDS = 'spiffe://dev.mayfly/agent/refunds';

describe('an agent in short, /agent/refunds, is the same agent as in full', () => {
  let at: AtBroker;
  beforeEach(async () => {
    at = await AtBroker.open();
  });
  afterEach(() => at.close());

  it.each([['/agent/refunds'], [REFUNDS]])('where records and leases are looked for: %s', async (name) => {
    for (const words of [['audit'], ['lease', 'ls']]) {
      const { code } = await at.mayfly(...words, '--agent', name);
      expect([code, at.asked.at(-1)?.url.searchParams.get('agent')]).toEqual([0, REFUNDS]);
    }
  });

  it('where a task is opened, once for each', async () => {
    at.answer = () => ({ status: 201, body: { id: 'tsk_a_1' } });
    await at.mayfly('task', 'start', '--agent', '/agent/refunds', '--agent', 'spiffe://other.example/x');
    expect(at.asked.at(-1)?.body['agents']).toEqual([REFUNDS, 'spiffe://other.example/x']);
  });

  it('and without its slash it is none: the value is shown with what may be meant', async () => {
    for (const words of [['task', 'start'], ['audit']]) {
      const { code, err } = await at.mayfly(...words, '--agent', 'agent/refunds');
      expect([code, err]).toEqual([
        1,
        expect.stringMatching(/--agent: agent\/refunds .*did you mean \/agent\/refunds\?/),
      ]);
    }
    expect(at.asked).toEqual([]);
  });

  it.each([
    ['refunds', '; did you mean /agent/refunds?'],
    ['spiffe://dev.mayfly/agent/refunds/', 'no path.'],
    ['/agent/refunds/', 'no path.'],
  ])('and what can be nobody’s, %s, is stopped, revoked and looked for by nobody', async (name, said) => {
    for (const words of [
      ['audit', '--agent', name],
      ['lease', 'ls', '--agent', name],
      ['stop', `agent=${name}`],
      ['revoke', `opener=${name}`],
    ]) {
      const { code, err } = await at.mayfly(...words);
      expect([code, err]).toEqual([1, expect.stringContaining(said)]);
    }
    expect(at.asked).toEqual([]);
  });

  it('where something is stopped', async () => {
    at.answer = () => ({ status: 403, body: { code: 'denied', detail: 'no' } });
    await at.mayfly('stop', 'agent=/agent/refunds', '--reason', 'x', '--yes');
    expect(at.asked.at(-1)?.body['selector']).toEqual({ agent: REFUNDS });
  });
});
