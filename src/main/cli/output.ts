import Table from 'cli-table3';
import { MayflyError } from '../../client/mayfly-error.js';
import { suggestion } from '../../core/did-you-mean.js';
import { BrokerError, ERRORS } from '../../core/errors.js';
import { OutputLost } from './closed-output.js';

export interface OutputFlags {
  /** Default: a table. */
  output?: 'table' | 'json';
  field?: string;
}

export type Row = Record<string, unknown>;

/** Data goes to standard output, talk to standard error: what a script reads is never mixed with words. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** One thing, or a list of them; `columns` are what a table shows. `--field` prints the bare value, one line each for a list. */
export function show(data: Row | Row[], flags: OutputFlags, columns?: string[]): void {
  const { field } = flags;
  if (field !== undefined) {
    for (const row of Array.isArray(data) ? data : [data]) process.stdout.write(`${textOf(valueAt(row, field))}\n`);
    return;
  }
  if (flags.output === 'json') {
    process.stdout.write(`${JSON.stringify(data, null, 2)}\n`);
    return;
  }
  process.stdout.write(`${Array.isArray(data) ? listTable(data, columns) : oneTable(data)}\n`);
}

function valueAt(row: Row, field: string): unknown {
  let at: unknown = row;
  const path: string[] = [];
  for (const name of field.split('.')) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, name)) {
      const beside = Object.keys(Object(at)).map((one) => [...path, one].join('.'));
      throw new UsageError(`There is no field ${field}; there are: ${beside.join(', ')}.`);
    }
    at = (at as Row)[name];
    path.push(name);
  }
  return at;
}

function listTable(rows: Row[], columns = rows[0] ? Object.keys(rows[0]) : []): string {
  if (rows.length === 0) return '(none)';
  const table = new Table({ head: columns, style: { head: [], border: [] }, chars: PLAIN });
  for (const row of rows) table.push(columns.map((column) => textOf(row[column])));
  return table.toString();
}

function oneTable(row: Row): string {
  const table = new Table({ style: { head: [], border: [] }, chars: PLAIN });
  for (const [name, value] of Object.entries(row)) if (value !== undefined) table.push([name, textOf(value)]);
  return table.toString();
}

const PLAIN = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: ' ',
};

function textOf(value: unknown): string {
  if (value === undefined || value === null) return '';
  return typeof value === 'string' ? printable(value) : JSON.stringify(value);
}

/** Names and reasons come from others: what would move the cursor or turn the text around is shown, not obeyed. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}]/gu, (character) => `\\u{${(character.codePointAt(0) as number).toString(16)}}`);
}

/** Before something is made that is printed once: a field that cannot be in the answer is a mistake while nothing was done. */
export function checkField({ field }: OutputFlags, names: readonly string[]): void {
  const first = field?.split('.')[0];
  if (first === undefined || names.includes(first)) return;
  throw new UsageError(
    `Nothing was done: there is no field ${field}; there are: ${names.join(', ')}${suggestion(first, names) || '.'}`,
  );
}

/** The command was not used as it is meant. */
export class UsageError extends Error {}

/** A token that a tool would not take; or (2) nobody could say whether it would. The verdict comes first, then why. */
export class NotTaken extends Error {
  readonly exitCode: 2 | 3;
  readonly because: string[];

  constructor(verdict: string, { exitCode, because }: { exitCode: 2 | 3; because: string[] }) {
    super(verdict);
    this.exitCode = exitCode;
    this.because = because;
  }
}

/** One clear line (and a hint), and the exit code: 1 usage, 2 server, 3 denied, 4 waiting. Never a stack trace. */
export function report(error: unknown): number {
  if (error instanceof UsageError) {
    say(`Error: ${error.message}`);
    return 1;
  }
  if (error instanceof OutputLost) {
    if (!error.isReaderGone) say(`Error: ${error.message}`);
    return error.exitCode;
  }
  if (error instanceof NotTaken) {
    say(`${error.exitCode === 3 ? 'Refused' : 'Nothing was checked'}: ${printable(error.message)}`);
    for (const line of error.because) say(`  ${printable(line)}`);
    return error.exitCode;
  }
  if (error instanceof MayflyError) {
    say(`Error: ${printable(error.message)} (${error.code})`);
    for (const problem of error.problems) if (problem !== error.message) say(`  - ${printable(problem)}`);
    if (error.hint !== undefined) say(`  ${printable(error.hint)}`);
    if (error.retryAfterSeconds !== undefined) say(`  Try again in ${error.retryAfterSeconds} s.`);
    if (error.policyIds.length > 0) say(`  Policies: ${error.policyIds.join(', ')}`);
    if (error.decisionId !== undefined) say(`  Why: npx mayfly why ${error.decisionId}`);
    return error.exitCode;
  }
  if (error instanceof BrokerError) {
    say(`Error: ${error.message}`);
    // Thrown in this process, so it is for whoever operates it.
    if (error.detail.reason !== undefined) say(`  ${error.detail.reason}`);
    for (const problem of error.detail.problems ?? []) say(`  - ${problem}`);
    if (error.detail.hint !== undefined) say(`  ${error.detail.hint}`);
    return ERRORS[error.code].exit;
  }
  const { code, message } = Object(error) as { code?: string; message?: string };
  say(`Error: ${message ?? 'something went wrong'}${code === undefined ? '' : ` (${code})`}`);
  return 2;
}
