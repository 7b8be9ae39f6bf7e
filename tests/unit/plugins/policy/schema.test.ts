import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PolicyAction } from '../../../../src/core/decision.js';
import { bundleFormat } from '../../../../src/plugins/policy/bundle.js';
import { withEngine } from '../../../../src/plugins/policy/engine.js';
import { APPLIES, cedarSchema, declaredAttributes } from '../../../../src/plugins/policy/schema.js';
import { sampleFiles } from './sample.js';

const PAGE = join(import.meta.dirname, '../../../../docs/plugins/policy/sample.cedarschema');
const GUIDE = join(import.meta.dirname, '../../../../docs/guides/write-policies.md');

describe('the schema', () => {
  it('is the one in the docs (run with UPDATE_DOCS=1 to write it anew)', () => {
    const schema = cedarSchema(declaredAttributes(bundleFormat.parse(sampleFiles())));
    if (process.env['UPDATE_DOCS'] === '1') writeFileSync(PAGE, schema);
    expect(readFileSync(PAGE, 'utf8')).toBe(schema);
  });

  it('is one that the engine reads, with nothing declared as well', () => {
    const empty = cedarSchema({ params: new Map(), taskContext: new Map(), arguments: new Map() });
    expect(withEngine((engine) => engine.checkParseSchema(empty))).toEqual({ type: 'success' });
  });

  it('holds names as users wrote them', () => {
    const odd = new Map([
      ['a.b-c', 'String' as const],
      ['if', 'Long' as const],
      ['type', 'Bool' as const],
    ]);
    const schema = cedarSchema({ params: odd, taskContext: odd, arguments: odd });
    expect(withEngine((engine) => engine.checkParseSchema(schema))).toEqual({ type: 'success' });
  });

  it('the guide tells of every action', () => {
    const guide = readFileSync(GUIDE, 'utf8');
    for (const action of Object.keys(APPLIES) as PolicyAction[]) expect(guide).toContain(`\`${action}\``);
  });
});
