import type { TaskType } from '../../../src/core/bundle.js';
import { contextProblem, effectiveContext, loosened, unfixed } from '../../../src/core/context.js';

const context: TaskType['context'] = {
  risk: { kind: 'ordered', values: ['low', 'medium', 'high'] },
  flags: { kind: 'add-only' },
  ticket: { kind: 'fixed' },
};
const types = new Map([['refund', { type: 'refund', context } as TaskType]]);
const path = (...said: Record<string, unknown>[]) =>
  effectiveContext(
    said.map((one) => ({ type: 'refund', context: one })),
    types,
  );

describe('the effective context of a path', () => {
  it('keeps the tighter of two ordered values, whoever said it', () => {
    expect(path({ risk: 'low' }, { risk: 'medium' })).toEqual({ risk: 'medium' });
    expect(path({ risk: 'high' }, { risk: 'low' })).toEqual({ risk: 'high' });
    expect(path({ risk: 'low' }, { risk: 'high' }, { risk: 'medium' })).toEqual({ risk: 'high' });
  });

  it.each(['HIGH', ' high', 'harmless', '', null, 3, ['low'], { low: 1 }])(
    'counts a value that is in no order as the tightest, whoever said it: %j',
    (risk) => {
      expect(path({ risk })).toEqual({ risk: 'high' });
      expect(path({ risk }, { risk: 'low' })).toEqual({ risk: 'high' });
      expect(path({ risk: 'medium' }, { risk })).toEqual({ risk: 'high' });
      expect(path({ risk: 'low' }, { risk }, { risk: 'low' })).toEqual({ risk: 'high' });
    },
  );

  it('unites add-only sets, and lets a child forget none of them', () => {
    expect(path({ flags: ['pii'] }, { flags: ['export'] })).toEqual({ flags: ['pii', 'export'] });
    expect(path({ flags: ['pii'] }, { flags: [] })).toEqual({ flags: ['pii'] });
    expect(path({ flags: ['pii'] }, { flags: 'none' })).toEqual({ flags: ['pii'] });
  });

  it("keeps the ancestor's value of a key without an order", () => {
    expect(path({ region: 'eu' }, { region: 'us' })).toEqual({ region: 'eu' });
    expect(path({ region: null }, { region: 'us' })).toEqual({ region: null });
    expect(effectiveContext([{ context: { risk: 'high' } }, { context: { risk: 'low' } }], types)).toEqual({
      risk: 'high',
    });
  });

  it('adds what only a child says', () => {
    expect(path({ region: 'eu' }, { risk: 'high' })).toEqual({ region: 'eu', risk: 'high' });
  });
});

describe('what loosens', () => {
  const type = types.get('refund');

  it('is named key by key', () => {
    expect(
      loosened({ risk: 'high', flags: ['pii'], region: 'eu' }, { risk: 'low', flags: [], region: 'us' }, type),
    ).toEqual(['risk', 'flags', 'region']);
  });

  it('is nothing that tightens or says it again', () => {
    expect(loosened({ risk: 'low', flags: ['pii'] }, { risk: 'high', flags: ['pii', 'x'] }, type)).toEqual([]);
    expect(loosened({ region: 'eu' }, { region: 'eu', risk: 'low' }, type)).toEqual([]);
  });
});

describe('a context that policy could not judge', () => {
  const type = types.get('refund');

  it.each([
    ['risk', 'HIGH'],
    ['risk', ' high'],
    ['risk', null],
    ['risk', 1],
    ['risk', ['high']],
    ['flags', 'pii'],
    ['flags', [1]],
    ['flags', null],
    ['ticket', 7],
    ['ticket', null],
  ])('is named by its key: %s as %j, also where the task has no type', (key, value) => {
    expect(contextProblem({ region: 'eu', [key]: value }, type, types)?.key).toBe(key);
    expect(contextProblem({ [key]: value }, undefined, types)?.key).toBe(key);
  });

  it('says which values there are', () => {
    expect(contextProblem({ risk: 'x' }, type, types)).toEqual({ key: 'risk', must: 'be one of low, medium, high' });
  });

  it('is nothing that a type declares, nor a key that none does', () => {
    const said = { risk: 'high', flags: [], ticket: 'A', region: { any: 'thing' } };
    expect(contextProblem(said, type, types)).toBeUndefined();
    expect(contextProblem(said, undefined, types)).toBeUndefined();
  });

  it('takes null for a removal in a patch only', () => {
    expect(contextProblem({ risk: null }, type, types, { patch: true })).toBeUndefined();
  });

  it.each(Object.getOwnPropertyNames(Object.prototype))('is a name that every object has: %s', (name) => {
    const context = JSON.parse(`{ ${JSON.stringify(name)}: "x" }`);
    expect(contextProblem(context, type, types)?.key).toBe(name);
    expect(contextProblem(context, undefined, new Map())?.key).toBe(name);
    expect(loosened({}, context, type)).toEqual([]);
    expect(loosened(context, {}, type)).toEqual([]);
  });
});

describe('what is fixed', () => {
  const type = types.get('refund');

  it('is set once: another value or none is named', () => {
    expect(unfixed({ ticket: 'A' }, { ticket: 'B' }, type)).toBe('ticket');
    expect(unfixed({ ticket: 'A' }, {}, type)).toBe('ticket');
  });

  it('can be set, and said again', () => {
    expect(unfixed({}, { ticket: 'A' }, type)).toBeUndefined();
    expect(unfixed({ ticket: 'A' }, { ticket: 'A', risk: 'low' }, type)).toBeUndefined();
  });

  it('is nothing that the type does not declare so', () => {
    expect(unfixed({ region: 'eu', risk: 'high' }, { region: 'us', risk: 'low' }, type)).toBeUndefined();
  });
});
