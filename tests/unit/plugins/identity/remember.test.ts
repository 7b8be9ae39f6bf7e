import type { TrustBundle } from '../../../../src/plugins/identity/contract.js';
import { keyOfBytes, ProofMemory } from '../../../../src/plugins/identity/remember.js';

const bundleOf = (trustDomain: string): TrustBundle => ({
  trustDomain,
  jwtKeys: new Map(),
  x509Authorities: [],
  fetchedAtMs: 0,
});
const bundle = bundleOf('a.example');
const current = () => bundle;
const entry = { value: 'proven', bundle, notBeforeMs: 1_000, expiresAtMs: 2_000 };

it('recalls what it was given until the millisecond it ends', () => {
  const memory = new ProofMemory<string>();
  memory.keep('k', entry);
  expect(memory.recall('k', 1_000, current)).toBe('proven');
  expect(memory.recall('k', 1_999, current)).toBe('proven');
  expect(memory.recall('k', 2_000, current)).toBeUndefined();
  expect(memory.recall('k', 1_500, current)).toBeUndefined();
});

it('recalls nothing before its beginning, but for the skew', () => {
  const memory = new ProofMemory<string>({ skewMs: 30 });
  memory.keep('k', entry);
  expect(memory.recall('k', 970, current)).toBe('proven');
  expect(memory.recall('k', 969, current)).toBeUndefined();
});

it('recalls nothing under another bundle, an equal one included', () => {
  const memory = new ProofMemory<string>();
  memory.keep('k', entry);
  expect(memory.recall('k', 1_500, () => bundleOf('a.example'))).toBeUndefined();
  memory.keep('k', entry);
  expect(memory.recall('k', 1_500, () => undefined)).toBeUndefined();
});

it('is bounded, and forgets what was not used for longest', () => {
  const memory = new ProofMemory<string>({ entriesMax: 3 });
  for (const key of ['a', 'b', 'c']) memory.keep(key, entry);
  memory.recall('a', 1_500, current);
  memory.keep('d', entry);
  expect(memory.size).toBe(3);
  expect(memory.recall('b', 1_500, current)).toBeUndefined();
  for (const key of ['a', 'c', 'd']) expect(memory.recall(key, 1_500, current)).toBe('proven');
});

it('its keys differ with every byte, and with where one part ends and the next begins', () => {
  expect(keyOfBytes('ab')).not.toBe(keyOfBytes('ab\n'));
  expect(keyOfBytes('ab', 'c')).not.toBe(keyOfBytes('a', 'bc'));
  expect(keyOfBytes('ab', 'c')).toBe(keyOfBytes(Buffer.from('ab'), Buffer.from('c')));
  expect(keyOfBytes('a secret token')).not.toContain('secret');
});
