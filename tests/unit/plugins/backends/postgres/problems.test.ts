import { inspect } from 'node:util';
import { BackendProblem } from '../../../../../src/plugins/backends/contract.js';
import { problemOf } from '../../../../../src/plugins/backends/postgres/problems.js';

/** As pg makes them: everything that the server said, quoted statements included. */
function fromServer(code: string, severity = 'ERROR') {
  return Object.assign(new Error('role "m" at db.internal: CREATE ROLE … PASSWORD \'hunter2\''), {
    code,
    severity,
    detail: 'hunter2',
    internalQuery: 'hunter2',
  });
}

const fromSystem = (code: string, message = 'connect hunter2') => Object.assign(new Error(message), { code });

describe('a problem', () => {
  it.each([
    [fromServer('57P03', 'FATAL'), 'unreachable'],
    [fromServer('08006', 'FATAL'), 'unreachable'],
    [fromServer('53300', 'FATAL'), 'busy'],
    [fromServer('28P01', 'FATAL'), 'forbidden'],
    [fromServer('42501'), 'forbidden'],
    [fromServer('57014'), 'timeout'],
    [fromServer('40P01'), 'busy'],
    [fromServer('XX000'), 'busy'],
    [fromServer('25006'), 'misconfigured'],
    [fromServer('42704'), 'misconfigured'],
    [fromServer('2BP01'), 'failed'],
    [fromSystem('ECONNREFUSED'), 'unreachable'],
    [fromSystem('ENOTFOUND'), 'unreachable'],
    [fromSystem('CERT_HAS_EXPIRED'), 'misconfigured'],
    [fromSystem('ERR_TLS_CERT_ALTNAME_INVALID'), 'misconfigured'],
    [new Error('timeout expired'), 'timeout'],
    [new Error('Connection terminated unexpectedly hunter2'), 'unreachable'],
    ['hunter2', 'unreachable'],
    [undefined, 'unreachable'],
  ])('%p has its kind, and nothing of the vendor’s words', (error, kind) => {
    const problem = problemOf(error, 'make a role');
    expect(problem.kind).toBe(kind);
    expect(`${inspect(problem)} ${JSON.stringify(problem)} ${problem.stack}`).not.toMatch(/hunter2|db\.internal/);
  });

  it('is sure only when the server said that the statement failed, and went on', () => {
    expect(problemOf(fromServer('42501'), 'x').isSure).toBe(true);
    expect(problemOf(fromServer('57P01', 'FATAL'), 'x').isSure).toBe(false);
    expect(problemOf(fromServer('58030'), 'x').isSure).toBe(false);
    expect(problemOf(fromSystem('ECONNRESET'), 'x').isSure).toBe(false);
    expect(problemOf(new Error('timeout expired'), 'x').isSure).toBe(false);
  });

  it('that is in our words already stays as it is', () => {
    const problem = new BackendProblem('too_late', 'too late', { isSure: true });
    expect(problemOf(problem, 'x')).toBe(problem);
  });
});
