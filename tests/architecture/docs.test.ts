import { existsSync, readFileSync } from 'node:fs';
import { generatedFiles } from '../../src/main/reference.js';

describe('what is generated', () => {
  for (const [name, content] of Object.entries(generatedFiles())) {
    it(`${name} is what the code says (npm run docs)`, () => {
      expect(existsSync(name) ? readFileSync(name, 'utf8') : 'missing').toBe(content);
    });
  }
});
