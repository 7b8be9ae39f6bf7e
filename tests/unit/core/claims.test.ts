import { namesIn, readTaskClaims, type TaskClaims, toolsOf } from '../../../src/core/claims.js';
import { newId } from '../../../src/core/ids.js';

const GOOD: TaskClaims = {
  iss: 'https://broker.example',
  sub: 'https://people.example#ann',
  aud: 'https://orders.example',
  client_id: 'spiffe://dev.mayfly/agent/refunds',
  iat: 1_795_382_752,
  exp: 1_795_383_052,
  jti: newId('lse', 'a', 1_795_382_752_000),
  scope: 'orders.read orders.write',
  authorization_details: [{ type: 'urn:mayfly:task', identifier: 'tsk_a_x' }],
  act: { sub: 'spiffe://dev.mayfly/agent/refunds', act: { sub: 'spiffe://dev.mayfly/agent/front' } },
  cnf: { jkt: 'thumbprint' },
  mayfly: { cell: 'a', path: ['tsk_a_x'], pos: '1-2-3', sel: ['hash'], bundle: 'sha256:b', call: true },
};

type Json = Record<string, unknown>;
const good = () => structuredClone(GOOD) as unknown as Json & { mayfly: Json };

it('well-formed claims are read as they are', () => {
  expect(readTaskClaims(good())).toEqual(GOOD);
});

it('an operator token has roles, an empty path and an empty scope', () => {
  const claims = good();
  claims.scope = '';
  claims.mayfly.path = [];
  claims.mayfly.roles = ['operator'];
  expect(readTaskClaims(claims)?.mayfly.roles).toEqual(['operator']);
});

it('act, cnf and call may be missing', () => {
  const { act: _, cnf: __, ...claims } = good();
  delete claims.mayfly.call;
  expect(readTaskClaims(claims)).toBeDefined();
});

describe('claims are refused', () => {
  it.each(['iss', 'sub', 'aud', 'client_id', 'iat', 'exp', 'jti', 'scope', 'authorization_details', 'mayfly'])(
    'without %s',
    (name) => {
      const claims = good();
      delete claims[name];
      expect(readTaskClaims(claims)).toBeUndefined();
    },
  );

  it.each(['cell', 'path', 'pos', 'sel', 'bundle'])('without mayfly.%s', (name) => {
    const claims = good();
    delete claims.mayfly[name];
    expect(readTaskClaims(claims)).toBeUndefined();
  });

  it.each<[string, Json]>([
    ['an audience in a list', { aud: ['https://orders.example'] }],
    ['an empty subject', { sub: '' }],
    ['a name of 2,049 characters', { client_id: 'x'.repeat(2_049) }],
    ['a time as text', { exp: '1795383052' }],
    ['a time with a fraction', { iat: 1_795_382_752.5 }],
    ['a time that no integer holds', { exp: 2 ** 60 }],
    ['a time before the epoch', { iat: -1 }],
    ['a lease id of another kind', { jti: newId('tsk', 'a', 0) }],
    ['a scope that is a list', { scope: ['orders.read'] }],
    ['details that are no list', { authorization_details: {} }],
    ['an actor without a name', { act: {} }],
    ['an actor that is a text', { act: 'spiffe://dev.mayfly/agent/x' }],
    ['actors nested deeper than eight', { act: nested(9) }],
    ['a confirmation that is empty', { cnf: {} }],
    ['two confirmations', { cnf: { jkt: 'a', 'x5t#S256': 'b' } }],
    ['a confirmation nobody knows', { cnf: { kid: 'a' } }],
    ['a confirmation that is no text', { cnf: { jkt: 5 } }],
    ['a null where its own part is', { mayfly: null }],
  ])('with %s', (_, members) => {
    expect(readTaskClaims({ ...good(), ...members })).toBeUndefined();
  });

  it.each<[string, Json]>([
    ['a path that is a text', { path: 'tsk_a_x' }],
    ['a path with a number', { path: [5] }],
    ['a position that is none', { pos: '1-2' }],
    ['hashes that are no list', { sel: {} }],
    ['513 hashes', { sel: Array.from({ length: 513 }, () => 'h') }],
    ['call that is not true', { call: false }],
    ['roles that are a text', { roles: 'operator' }],
  ])('with %s of ours', (_, members) => {
    const claims = good();
    Object.assign(claims.mayfly, members);
    expect(readTaskClaims(claims)).toBeUndefined();
  });
});

it('everybody named is client, subject and every actor, each once', () => {
  expect(namesIn(GOOD)).toEqual([
    'spiffe://dev.mayfly/agent/refunds',
    'https://people.example#ann',
    'spiffe://dev.mayfly/agent/front',
  ]);
});

it('an empty scope holds no tool, not an empty one', () => {
  expect(toolsOf({ scope: '' })).toEqual([]);
  expect(toolsOf(GOOD)).toEqual(['orders.read', 'orders.write']);
});

function nested(depth: number): object {
  return depth === 1 ? { sub: 'a' } : { sub: 'a', act: nested(depth - 1) };
}
