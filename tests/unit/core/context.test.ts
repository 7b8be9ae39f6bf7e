import type { TaskType } from '../../../src/core/bundle.js';
import { effectiveContext, loosened } from '../../../src/core/context.js';

const context: TaskType['context'] = {
  risk: { kind: 'ordered', values: ['low', 'medium', 'high'] },
  flags: { kind: 'add-only' },
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

  it("keeps the ancestor's value where a child's is in no order", () => {
    expect(path({ risk: 'medium' }, { risk: 'harmless' })).toEqual({ risk: 'medium' });
    expect(path({ risk: 'unheard of' }, { risk: 'low' })).toEqual({ risk: 'unheard of' });
  });

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
