import { installationOf } from '../../../src/main/backend-deps.js';

describe('an installation’s name', () => {
  it('is eight letters and digits, the same for every broker of the cell, another for another cell', () => {
    const names = Array.from({ length: 500 }, (_, at) =>
      installationOf(new Uint8Array(32).fill(at % 256, 0, 1 + (at >> 8))),
    );
    for (const name of names) expect(name).toMatch(/^[a-z0-9]{8}$/);
    expect(new Set(names).size).toBe(499);
    expect(installationOf(new Uint8Array(32))).toBe(names[0]);
  });
});
