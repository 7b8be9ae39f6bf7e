import { existsSync, readFileSync } from 'node:fs';
import { referencePages } from '../../src/main/reference.js';

describe('docs/reference', () => {
  for (const [name, content] of Object.entries(referencePages())) {
    it(`${name} is what the code says (npm run docs)`, () => {
      const path = `docs/reference/${name}`;
      expect(existsSync(path) ? readFileSync(path, 'utf8') : 'missing').toBe(content);
    });
  }
});
