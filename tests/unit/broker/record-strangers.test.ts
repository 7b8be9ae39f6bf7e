import { authenticate } from '../../../src/broker/authenticate.js';
import type { Caller, Evidence } from '../../../src/broker/caller.js';
import { getTask } from '../../../src/broker/look-up.js';
import { mint } from '../../../src/broker/mint.js';
import { BrokerError } from '../../../src/core/errors.js';
import { svid } from '../../fakes/identity.js';
import { EMAILS, REFUNDS } from '../../fakes/policy.js';
import { agentOf, openVerbWorld, type VerbWorld } from './world.js';

const WRITTEN = 10;

describe('whoever nobody knows', () => {
  let world: VerbWorld;
  let evidence: Evidence;

  beforeEach(async () => {
    world = await openVerbWorld();
    evidence = {
      authorization: { scheme: 'Bearer', token: 'not-an-identity' },
      method: 'GET',
      url: `${world.settings.issuer}/v1/tasks`,
      requestId: 'req_1',
      traceId: 'trace_1',
    };
  });

  const refusal = async (given: Evidence = evidence): Promise<BrokerError> => {
    const error = await authenticate(world, given).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    if (!(error instanceof BrokerError)) throw new Error('it was not refused');
    return error;
  };
  const knocks = async (times: number) => {
    const errors: BrokerError[] = [];
    for (let at = 0; at < times; at++) errors.push(await refusal());
    return errors;
  };
  const records = (type: string) => world.line.state.audit.filter((one) => one.type === type);

  it('is refused with a record that says why, while the answer does not', async () => {
    const error = await refusal();
    expect([error.code, error.message]).toEqual(['identity_rejected', 'The identity was not accepted.']);
    expect(records('request.refused')).toEqual([
      expect.objectContaining({
        id: error.detail.decisionId,
        actor: {},
        effect: 'deny',
        code: 'identity_rejected',
        reasons: ['not an identity'],
        requestId: 'req_1',
        traceId: 'trace_1',
      }),
    ]);
    expect(JSON.stringify(world.line.state.audit)).not.toContain('not-an-identity');
  });

  it('fills no store: ten refusals of a second are written, a flood of others is one number', async () => {
    const errors = await knocks(1_000);
    expect(records('request.refused')).toHaveLength(WRITTEN);
    expect(errors.filter((error) => error.detail.decisionId !== undefined)).toHaveLength(WRITTEN);
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(['identity_rejected']));
    const startedAt = new Date(world.clock.now()).toISOString();

    world.clock.advance(1_000);
    await refusal();
    expect(records('audit.dropped').map(({ detail }) => detail)).toEqual([{ refusals: 990, from: startedAt }]);
    expect(records('request.refused')).toHaveLength(WRITTEN + 1);
  });

  it('a second in which all were written down leaves no number, and the next one has its own ten', async () => {
    await knocks(WRITTEN);
    world.clock.advance(1_000);
    await knocks(WRITTEN + 3);
    world.clock.advance(1_000);
    await refusal();
    expect(records('audit.dropped').map(({ detail }) => detail?.['refusals'])).toEqual([3]);
    expect(records('request.refused')).toHaveLength(2 * WRITTEN + 1);
  });

  it('those who knock together are counted together', async () => {
    await Promise.all(Array.from({ length: 50 }, () => refusal()));
    expect(records('request.refused')).toHaveLength(WRITTEN);
    world.clock.advance(1_000);
    await refusal();
    expect(records('audit.dropped').map(({ detail }) => detail?.['refusals'])).toEqual([50 - WRITTEN]);
  });

  it('a clock that steps back starts a new second and loses no number', async () => {
    await knocks(WRITTEN + 5);
    world.clock.set(world.clock.now() - 3_600_000);
    await refusal();
    expect(records('audit.dropped').map(({ detail }) => detail?.['refusals'])).toEqual([5]);
  });

  it('is refused all the same when nothing can be written, without an id', async () => {
    world.line.out = true;
    const error = await refusal();
    expect([error.code, error.detail.decisionId]).toEqual(['identity_rejected', undefined]);
    world.line.out = false;
    expect(records('request.refused')).toEqual([]);
  });

  it('does not count those who are known, nor those whom we could not answer', async () => {
    for (let at = 0; at < 20; at++) {
      await authenticate(world, { ...evidence, authorization: { scheme: 'Bearer', token: svid(REFUNDS) } });
    }
    world.policies.forget(world.policies.current()?.bundle.digest as string);
    for (let at = 0; at < 20; at++) {
      const known = { ...evidence, authorization: { scheme: 'Bearer' as const, token: svid(REFUNDS) } };
      expect((await refusal(known)).code).toBe('unavailable');
    }
    expect(records('request.refused')).toEqual([]);
    world.clock.advance(1_000);
    await refusal();
    expect(records('audit.dropped')).toEqual([]);
  });

  it('who is declared nowhere is sampled by the token endpoint too', async () => {
    const { authorization: _, ...anonymous } = evidence;
    const stranger = () =>
      mint(world, {
        grantType: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subjectToken: svid('spiffe://dev.mayfly/agent/unknown'),
        subjectTokenType: 'urn:ietf:params:oauth:token-type:jwt',
        resources: [],
        audiences: [],
        evidence: { ...anonymous, method: 'POST' },
      }).catch((error: unknown) => error as BrokerError);
    const errors: BrokerError[] = [];
    for (let at = 0; at < 30; at++) errors.push((await stranger()) as BrokerError);
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(['denied']));
    expect(records('request.refused')).toHaveLength(WRITTEN);
  });
});

describe('whoever is known', () => {
  it('is written down at each refusal, and when there is no end to them a hundred a second, and the number of the others', async () => {
    const world = await openVerbWorld();
    const as = (name: string) => agentOf(world, { name });
    const records = (type: string) => world.line.state.audit.filter((one) => one.type === type);
    const refused = async (caller: Caller) =>
      getTask(world, caller, 'ref:nowhere').then(
        () => undefined,
        (error: BrokerError) => [error.code, error.detail.decisionId !== undefined],
      );
    const answers = [];
    for (let at = 0; at < 150; at++) answers.push(await refused(as(REFUNDS)));
    expect(answers.slice(0, 100)).toEqual(Array(100).fill(['not_found', true]));
    expect(answers.slice(100)).toEqual(Array(50).fill(['not_found', false]));
    expect(await refused(as(EMAILS))).toEqual(['not_found', true]);
    expect(records('request.refused')).toHaveLength(101);
    const from = new Date(world.clock.now()).toISOString();

    world.clock.advance(1_000);
    expect(await refused(as(REFUNDS))).toEqual(['not_found', true]);
    expect(records('audit.dropped').map(({ actor, detail }) => [actor.workload, detail])).toEqual([
      [REFUNDS, { refusals: 50, from }],
    ]);
  });
});
