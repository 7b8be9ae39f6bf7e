import { withEngine } from '../../../../src/plugins/policy/engine.js';
import { type ReadPath, readPathsOf, touches } from '../../../../src/plugins/policy/reads.js';

function readsOf(conditions: string): string[] {
  const answer = withEngine((engine) => engine.policyToJson(`permit (principal, action, resource) ${conditions};`));
  if (answer.type === 'failure') throw new Error(answer.errors[0]?.message);
  return readPathsOf(answer.json).map((path) => path.join('.'));
}

describe('what a policy reads', () => {
  it.each([
    ['nothing', '', []],
    ['a value', 'when { context.task.type == "x" }', ['context.task.type']],
    ['both sides', 'when { context.a.b == principal.c }', ['context.a.b', 'principal.c']],
    ['what it must not be', 'unless { context.a }', ['context.a']],
    ['whether it is there', 'when { context.task has parent }', ['context.task.parent']],
    ['whether it is there, deep down', 'when { context has a.b.c }', ['context.a.b.c']],
    ['by an index', 'when { context["a b"]["c"] }', ['context.a b.c']],
    ['in a call', 'when { principal.tools.contains(resource.name) }', ['principal.tools', 'resource.name']],
    [
      'in an extension',
      'when { context.now > datetime("2030-01-01").offset(duration(context.text)) }',
      ['context.now', 'context.text'],
    ],
    ['in a set and a record', 'when { [context.a, {x: context.b}.x].contains(1) }', ['context.a', 'context.b']],
    ['in every branch', 'when { if context.a then context.b else context.c }', ['context.a', 'context.b', 'context.c']],
    ['the whole context', 'when { [context].contains(context) }', ['context']],
    [
      'an id, which every key has',
      'when { principal == resource && principal in resource && resource is Tool in principal }',
      [],
    ],
    ['tags', 'when { principal.hasTag("a") && principal.getTag(context.a) == "b" }', ['principal.__tags', 'context.a']],
    [
      'an entity through a condition',
      'when { (if context.a then principal else resource).team == "x" }',
      ['context.a', 'principal', 'resource'],
    ],
    ['an entity out of a record', 'when { {a: principal}.a.team == "x" }', ['principal']],
    [
      'tags through a condition',
      'when { (if context.a then principal else principal).hasTag("x") }',
      ['context.a', 'principal'],
    ],
    ['no text that looks like a variable', 'when { "context.a" == "principal" }', []],
  ])('%s', (_, conditions, reads) => {
    expect(readsOf(conditions)).toEqual(reads);
  });
});

describe('whether a value is touched', () => {
  const reads: ReadPath[] = [
    ['context', 'now'],
    ['context', 'task', 'params'],
  ];

  it.each<[ReadPath, boolean]>([
    [['context', 'now'], true],
    [['context', 'now', 'deeper'], true],
    [['context'], true],
    [['context', 'task'], true],
    [['context', 'task', 'params', 'order_id'], true],
    [['context', 'task', 'type'], false],
    [['context', 'nowhere'], false],
    [['principal', 'now'], false],
  ])('%j: %s', (path, touched) => {
    expect(touches(reads, path)).toBe(touched);
  });
});
