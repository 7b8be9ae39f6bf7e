import { standingException } from '../../../src/core/standing-exception.js';

const NOW_MS = Date.parse('2030-06-15T12:00:00Z');
const exception = { secret: 'pager', reason: 'no API for users', until: '2030-12-31', owner: 'ops@example.com' };
const agent = (...standingExceptions: (typeof exception)[]) => ({ retired: false, standingExceptions });

describe('a standing secret is handed out', () => {
  it('under an exception that names it, with who answers for it and its end', () => {
    expect(standingException(agent(exception), 'pager', NOW_MS)).toEqual({
      reason: 'no API for users',
      owner: 'ops@example.com',
      untilMs: Date.parse('2030-12-31T00:00:00Z'),
    });
  });

  it('under the exception that lasts longest, wherever it stands', () => {
    const short = { ...exception, until: '2030-07-01', owner: 'other@example.com' };
    for (const both of [agent(short, exception), agent(exception, short)]) {
      expect(standingException(both, 'pager', NOW_MS)?.owner).toBe('ops@example.com');
    }
  });

  it.each([
    ['without any exception', agent()],
    ['under one for another secret', agent({ ...exception, secret: 'pager-2' })],
    ['under one whose name differs by case', agent({ ...exception, secret: 'Pager' })],
    ['under one that is over', agent({ ...exception, until: '2030-06-14' })],
    ['on the very day of its end', agent({ ...exception, until: '2030-06-15' })],
    ['under one whose end cannot be read', agent({ ...exception, until: 'never' })],
    ['under one without an end', agent({ ...exception, until: '' })],
    ['under one that nobody answers for', agent({ ...exception, owner: '' })],
    ['to a retired workload', { ...agent(exception), retired: true }],
  ])('not %s', (_, declaration) => {
    expect(standingException(declaration, 'pager', NOW_MS)).toBeUndefined();
  });

  it('not at the very millisecond of the end, and until the one before', () => {
    const endMs = Date.parse('2030-12-31');
    expect(standingException(agent(exception), 'pager', endMs - 1)).toBeDefined();
    expect(standingException(agent(exception), 'pager', endMs)).toBeUndefined();
  });
});
