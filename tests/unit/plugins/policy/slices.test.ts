import type { Policy } from '../../../../src/plugins/policy/policy-text.js';
import { readPolicies } from '../../../../src/plugins/policy/policy-text.js';
import { sliceBy } from '../../../../src/plugins/policy/slices.js';
import { callQuestion, mintQuestion, REFUNDS } from './sample.js';

const toolsOf = (api: string) => (api === 'https://orders.example' ? ['orders.read', 'orders.refund'] : []);

function slicesOf(text: string, toolsIn = toolsOf) {
  const problems: string[] = [];
  const policies = readPolicies(new Map([['a.cedar', text]]), problems);
  expect(problems).toEqual([]);
  const made: string[][] = [];
  const divided = sliceBy(policies, toolsIn, (members: Policy[]) => {
    const ids = members.map((policy) => policy.id);
    made.push(ids);
    return ids;
  });
  return { ...divided, made };
}

describe('a slice', () => {
  it('holds what could speak to the question, and nothing else', () => {
    const { of } = slicesOf(`
      @id("all") permit (principal, action, resource);
      @id("mint") permit (principal, action == Action::"mint", resource);
      @id("call") permit (principal, action in [Action::"call", Action::"read"], resource);
      @id("person") permit (principal is Person, action, resource);
      @id("secret") permit (principal, action, resource is Secret);
      @id("orders") permit (principal, action, resource in Api::"https://orders.example");
      @id("search") permit (principal, action, resource == Tool::"search.query");`);
    expect(of(mintQuestion())).toEqual(['all', 'mint', 'orders']);
    expect(of(mintQuestion({ tool: 'search.query' }))).toEqual(['all', 'mint', 'search']);
    expect(of(mintQuestion({ tool: 'elsewhere' }))).toEqual(['all', 'mint']);
    expect(of(callQuestion({}))).toEqual(['all', 'call', 'orders']);
  });

  it('is divided by who asks where most policies are about one agent', () => {
    const many = Array.from(
      { length: 200 },
      (_, n) => `@id("a${n}") permit (principal == Agent::"spiffe://td/agent/n${n}", action, resource);`,
    );
    const { of } = slicesOf(
      `${many.join('\n')} @id("me") permit (principal == Agent::"${REFUNDS}", action, resource); @id("all") forbid (principal, action, resource);`,
    );
    expect(of(mintQuestion())).toEqual(['me', 'all']);
  });

  it('is divided by the type of the task where most policies are about one', () => {
    const many = Array.from(
      { length: 200 },
      (_, n) => `@id("t${n}") permit (principal, action, resource) when { "type${n}" == context.task.type && true };`,
    );
    const { of } = slicesOf(
      `${many.join('\n')} @id("refund") permit (principal, action, resource) when { true } when { context.task.type == "refund" };`,
    );
    expect(of(mintQuestion())).toEqual(['refund']);
    expect(of(mintQuestion({ task: { type: 'type7' } }))).toEqual(['t7']);
    expect(of(mintQuestion({ task: { type: undefined } }))).toEqual([]);
  });

  it.each([
    ['an unless', 'unless { context.task.type == "other" }'],
    ['an or', 'when { context.task.type == "other" || true }'],
    ['a not', 'when { !(context.task.type == "other") }'],
    ['another attribute called type', 'when { context.type == "other" }'],
  ])('a policy is never left out for what %s says', (_, conditions) => {
    const { of } = slicesOf(`@id("a") permit (principal, action, resource) ${conditions};`);
    expect(of(mintQuestion())).toEqual(['a']);
  });

  it('an audience is in itself', () => {
    const { of } = slicesOf('@id("a") permit (principal, action, resource in Api::"https://orders.example");');
    const asked = mintQuestion();
    expect(of({ ...asked, resource: { type: 'Api', id: 'https://orders.example', attributes: {} } })).toEqual(['a']);
    expect(of({ ...asked, resource: { type: 'Api', id: 'https://search.example', attributes: {} } })).toEqual([]);
  });

  it('is made when it is first asked for, once for each different set of policies', () => {
    const { of, made } = slicesOf(`
      @id("a") permit (principal, action, resource);
      @id("b") permit (principal, action, resource == Tool::"search.query");`);
    expect(made).toEqual([]);
    expect(of(mintQuestion())).toBe(of(mintQuestion({ tool: 'orders.refund', task: { type: 'research' } })));
    expect(of(callQuestion({}))).toBe(of(mintQuestion()));
    of(mintQuestion({ tool: 'search.query' }));
    expect(made).toEqual([['a'], ['a', 'b']]);
  });

  it('is divided in all dimensions at once', () => {
    const { of } = slicesOf(`
      @id("a") permit (principal == Agent::"${REFUNDS}", action, resource == Tool::"search.query");
      @id("b") permit (principal == Agent::"spiffe://td/agent/b", action, resource == Tool::"orders.read");
      @id("c") permit (principal, action, resource == Tool::"orders.read") when { context.task.type == "research" };
      @id("d") permit (principal, action, resource == Tool::"orders.read") when { context.task.type == "refund" };`);
    expect(of(mintQuestion())).toEqual(['d']);
    expect(of(mintQuestion({ tool: 'search.query' }))).toEqual(['a']);
    expect(of(mintQuestion({ task: { type: 'research' } }))).toEqual(['c']);
  });

  it('of a question that nobody can ask there is none', () => {
    const { of } = slicesOf('@id("a") permit (principal, action, resource);');
    expect(of({ ...mintQuestion(), action: 'read' })).toBeUndefined();
    expect(of({ ...mintQuestion(), principal: { type: 'Person', id: 'x', attributes: {} } })).toBeUndefined();
  });
});
