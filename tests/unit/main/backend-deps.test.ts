import { installationOf } from '../../../src/main/backend-deps.js';

describe('an installation’s name', () => {
  it('is eight letters and digits, the same for everybody with its root key and cell, another for other ones', () => {
    const keys = Array.from({ length: 500 }, (_, at) => new Uint8Array(32).fill(at % 250, 0, 1 + Math.floor(at / 250)));
    const names = keys.map((key) => installationOf(key, 'a'));
    for (const name of names) expect(name).toMatch(/^[a-z0-9]{8}$/);
    // (Filled with zeros, both are the same key.)
    expect(new Set(names).size).toBe(499);
    expect(installationOf(new Uint8Array(32), 'a')).toBe(names[0]);
    expect(installationOf(new Uint8Array(32), 'b')).not.toBe(names[0]);
  });
});
