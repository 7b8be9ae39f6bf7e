import { type CST, Parser, parseDocument } from 'yaml';
import { z } from 'zod';
import { suggestion } from '../../core/did-you-mean.js';
import { BrokerError } from '../../core/errors.js';

const PROBLEMS_SHOWN_MAX = 50;

/** The error every refused bundle ends in: all of its problems at once, the first ones in words. */
export function invalid(problems: string[]): BrokerError {
  const shown = problems.slice(0, PROBLEMS_SHOWN_MAX);
  if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`);
  const count = problems.length === 1 ? 'one problem' : `${problems.length} problems`;
  return new BrokerError('bundle_invalid', `The bundle has ${count}; the active one stays.`, { problems: shown });
}

/** YAML 1.2 with every surprise refused: duplicate keys, aliases, custom tags, several documents, depths that nobody writes. */
export function readYaml(path: string, content: string, problems: string[]): unknown {
  if (isTooDeep(content)) {
    problems.push(`${path}: is nested too deeply`);
    return undefined;
  }
  const document = parseDocument(content, { version: '1.2', schema: 'core', uniqueKeys: true, strict: true });
  const faults = [...document.errors, ...document.warnings];
  for (const fault of faults) {
    const line = fault.linePos?.[0].line;
    problems.push(`${path}${line === undefined ? '' : ` line ${line}`}: ${firstLine(fault.message)}`);
  }
  if (faults.length > 0) return undefined;
  try {
    const value: unknown = document.toJS({ maxAliasCount: 0 });
    // Whatever reads the value later would skip this name without a word.
    if (/\b__proto__\b/.test(content)) {
      problems.push(`${path}: __proto__ is not a name that can be used here`);
      return undefined;
    }
    if (typeof value === 'object' && value !== null) return value;
    problems.push(`${path}: is empty; write one declaration, or a list of them`);
  } catch {
    problems.push(`${path}: uses an alias (*name); write the value out`);
  }
  return undefined;
}

/** Levels of YAML's syntax tree, about three for each level that somebody wrote. */
const DEPTH_MAX = 64;

/** Looked at before anything is composed: composing recurses, and deep enough it takes the process down. */
function isTooDeep(content: string): boolean {
  const todo: { token: object; depth: number }[] = [];
  for (const token of new Parser().parse(content)) todo.push({ token, depth: 1 });
  for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
    if (next.depth > DEPTH_MAX) return true;
    for (const inner of Object.values(next.token as CST.Token)) {
      if (typeof inner === 'object' && inner !== null) todo.push({ token: inner, depth: next.depth + 1 });
    }
  }
  return false;
}

function firstLine(message: string): string {
  return (message.split('\n')[0] as string).replace(/ at line \d+, column \d+:?$/, '');
}

/** One of zod's issues in our words: field, what, what to do. */
export function problemsOf(at: string, issue: z.core.$ZodIssue, shape: z.ZodType, value: unknown): string[] {
  const field = issue.path.map(String).join('.');
  const where = field === '' ? at : `${at} ${field}`;
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map(
        (unknown) =>
          `${[at, [...issue.path, unknown].map(String).join('.')].join(' ')}: is not known here${suggestion(unknown, keysAt(shape, issue.path))}`,
      );
    case 'invalid_key':
      return [`${where}: the name ${issue.issues[0]?.message ?? 'is not allowed'}`];
    case 'invalid_union': {
      // The branch that fits the kind of value that was written knows best what is wrong with it.
      const kind = kindOf(valueAt(value, issue.path));
      const branches = issue.errors.filter(
        (branch) =>
          branch.length > 0 && !branch.some((inner) => inner.path.length === 0 && inner.code === 'invalid_type'),
      );
      const branch = branches.length === 1 || kind === 'object' ? branches.at(-1) : undefined;
      if (branch === undefined || issue.message !== 'Invalid input')
        return [`${where}: ${issue.message === 'Invalid input' ? `cannot be ${kind}` : issue.message}`];
      return branch.flatMap((inner) =>
        problemsOf(at, { ...inner, path: [...issue.path, ...inner.path] } as z.core.$ZodIssue, shape, value),
      );
    }
    case 'invalid_type': {
      const missing = valueAt(value, issue.path) === undefined;
      return [
        `${where}: ${missing ? `is missing; write ${article(issue.expected)}` : `must be ${article(issue.expected)}`}`,
      ];
    }
    case 'invalid_value':
      return [
        `${where}: must be ${issue.values.map((allowed) => JSON.stringify(allowed)).join(' or ')}${suggestion(String(valueAt(value, issue.path)), issue.values.map(String))}`,
      ];
    default:
      return [`${where}: ${issue.message}`];
  }
}

function article(kind: string): string {
  const words: Record<string, string> = {
    array: 'a list',
    record: 'a mapping',
    object: 'a mapping',
    boolean: 'true or false',
    int: 'a whole number',
    number: 'a number',
    string: 'a text',
  };
  return words[kind] ?? `a ${kind}`;
}

function kindOf(value: unknown): string {
  if (value === null || value === undefined) return 'empty';
  return Array.isArray(value) ? 'a list' : typeof value === 'object' ? 'object' : `a ${typeof value}`;
}

function valueAt(value: unknown, path: PropertyKey[]): unknown {
  let here = value;
  for (const step of path) {
    if (typeof here !== 'object' || here === null || !Object.hasOwn(here, step)) return undefined;
    here = (here as Record<PropertyKey, unknown>)[step];
  }
  return here;
}

/** The keys a shape knows at a path, for suggestions. */
function keysAt(shape: z.ZodType, path: PropertyKey[]): string[] {
  let here: z.ZodType[] = [shape];
  for (const step of path) here = here.flatMap((each) => stepInto(each, step));
  return here
    .flatMap((each) => unwrapped(each))
    .flatMap((each) => (each instanceof z.ZodObject ? Object.keys(each.shape) : []));
}

function unwrapped(shape: z.ZodType): z.ZodType[] {
  if (shape instanceof z.ZodDefault || shape instanceof z.ZodOptional) return unwrapped(shape.unwrap() as z.ZodType);
  if (shape instanceof z.ZodUnion) return shape.options.flatMap((option) => unwrapped(option as z.ZodType));
  return [shape];
}

function stepInto(shape: z.ZodType, step: PropertyKey): z.ZodType[] {
  return unwrapped(shape).flatMap((each) => {
    if (each instanceof z.ZodObject)
      return Object.hasOwn(each.shape, step) ? [each.shape[String(step)] as z.ZodType] : [];
    if (each instanceof z.ZodArray) return [each.element as z.ZodType];
    return each instanceof z.ZodRecord ? [each.valueType as z.ZodType] : [];
  });
}
