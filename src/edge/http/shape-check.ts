import { z } from 'zod';
import { suggestion } from '../../core/did-you-mean.js';
import { BrokerError } from '../../core/errors.js';
import { printable } from './printable.js';

const PROBLEMS_MAX = 20;

/** The checked value, or `invalid_request` naming every field that is wrong (an unknown one with what was probably meant). */
export function checkShape<Schema extends z.ZodType>(schema: Schema, value: unknown, what: string): z.output<Schema> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const problems = problemsOf(result.error.issues, schema).slice(0, PROBLEMS_MAX);
  const [first] = problems;
  if (first === undefined) throw new BrokerError('invalid_request', `The ${what} is malformed.`);
  throw new BrokerError('invalid_request', first.message, {
    ...(first.field === '' ? {} : { field: first.field }),
    ...(problems.length > 1 ? { problems: problems.map((problem) => problem.message) } : {}),
  });
}

interface Problem {
  field: string;
  message: string;
}

function problemsOf(issues: readonly z.core.$ZodIssue[], schema: z.ZodType): Problem[] {
  return issues
    .flatMap((issue): Problem[] => {
      if (issue.code === 'unrecognized_keys') {
        const known = membersAt(schema, issue.path);
        return issue.keys.map((key) => {
          const field = printable([...issue.path, key].join('.'));
          return { field, message: `There is no field "${field}"${suggestion(printable(key), known) || '.'}` };
        });
      }
      const field = printable(issue.path.join('.'));
      const said = `${issue.message.charAt(0).toLowerCase()}${issue.message.slice(1)}`;
      return [{ field, message: field === '' ? `${issue.message}.` : `"${field}": ${said}.` }];
    })
    .sort((a, b) => Number(isMissing(a)) - Number(isMissing(b)));
}

/** A misspelt field shows as one unknown and one missing: the unknown one explains both, so it comes first. */
function isMissing(problem: Problem): boolean {
  return problem.message.includes('received undefined');
}

/** The names an object of the schema may have at a path. */
function membersAt(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let at: z.ZodType | undefined = unwrap(schema);
  for (const step of path) {
    if (at instanceof z.ZodObject && Object.hasOwn(at.shape, step)) at = unwrap(at.shape[String(step)] as z.ZodType);
    else if (at instanceof z.ZodArray) at = unwrap(at.element as z.ZodType);
    else if (at instanceof z.ZodRecord) at = unwrap(at.valueType as z.ZodType);
    else return [];
  }
  return at instanceof z.ZodObject ? Object.keys(at.shape) : [];
}

/** Members of an object that are lists, looking through `optional` and `default`. */
export function listMembersOf(schema: z.ZodObject): ReadonlySet<string> {
  const known = lists.get(schema);
  if (known) return known;
  const found = new Set(
    Object.entries(schema.shape).flatMap(([name, member]) =>
      unwrap(member as z.ZodType) instanceof z.ZodArray ? [name] : [],
    ),
  );
  lists.set(schema, found);
  return found;
}

const lists = new WeakMap<z.ZodObject, ReadonlySet<string>>();

function unwrap(schema: z.ZodType | undefined): z.ZodType | undefined {
  let at = schema;
  while (
    at instanceof z.ZodOptional ||
    at instanceof z.ZodDefault ||
    at instanceof z.ZodNullable ||
    at instanceof z.ZodReadonly
  ) {
    at = at.unwrap() as z.ZodType;
  }
  return at;
}
