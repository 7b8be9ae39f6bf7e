import type { Command } from 'commander';
import { z } from 'zod';
import { AUDIT_TYPES } from '../core/audit.js';
import { ERRORS } from '../core/errors.js';
import { openApiDocument } from '../edge/http/openapi.js';
import { routes } from '../edge/http/routes/index.js';
import { KEY_DOCS } from '../state/keys.js';
import { chartSchema } from './chart-schema.js';
import { program } from './cli/program.js';
import { configSchema, ENVIRONMENT } from './config.js';
import { METRICS, type MetricRow } from './metric-table.js';

/** The generated pages of docs/reference, path to content. `npm run docs` writes them; a test keeps them equal to the code. */
function referencePages(): Record<string, string> {
  return {
    'openapi.json': `${JSON.stringify(openApiDocument(routes), null, 2)}\n`,
    'errors.md': errorsPage(),
    'redis-keys.md': keysPage(),
    'audit-events.md': auditPage(),
    'config.md': configPage(),
    'metrics.md': metricsPage(),
    'cli.md': commandPage(),
  };
}

/** All that is generated, by its path in the repository. */
export function generatedFiles(): Record<string, string> {
  const pages = Object.entries(referencePages()).map(([name, content]) => [`docs/reference/${name}`, content]);
  return { ...Object.fromEntries(pages), 'helm/mayfly/values.schema.json': chartSchema() };
}

const GENERATED = '<!-- Written by `npm run docs`; edit the code instead. -->\n';

function errorsPage(): string {
  const rows = Object.entries(ERRORS).map(
    ([code, { title, status, oauth, oauthStatus, exit }]) =>
      `| <a id="${code}"></a>\`${code}\` | ${title} | ${status} | ${oauthStatus} \`${oauth}\` | ${exit} |`,
  );
  return `${GENERATED}
# Errors

Under \`/v1\` an error is a problem document (RFC 9457) whose \`code\` is stable; at \`/oauth2\` it has the error names of the OAuth
specifications. \`hint\` says what to do, \`field\` names what was wrong, \`decision_id\` is what \`mayfly why\` explains.

| code | meaning | \`/v1\` status | \`/oauth2\` | exit code |
|---|---|---|---|---|
${rows.join('\n')}
`;
}

function keysPage(): string {
  const rows = KEY_DOCS.map((key) => `| \`${key.name}\` | ${key.type} | ${key.content} | ${key.life} | ${key.loss} |`);
  return `${GENERATED}
# Redis keys

All keys of a cell begin with \`{mayfly:<cell>}:\`, one hash tag, so that every change is one script in one slot.

| key | type | content | life | what its loss means |
|---|---|---|---|---|
${rows.join('\n')}
`;
}

function auditPage(): string {
  const rows = Object.entries(AUDIT_TYPES).map(([type, meaning]) => `| \`${type}\` | ${meaning} |`);
  return `${GENERATED}
# Audit events

Every record is written by the same script as the change it describes, and carries the position of the line after it.

| type | meaning |
|---|---|
${rows.join('\n')}
`;
}

function metricsPage(): string {
  const rows = Object.entries<MetricRow>(METRICS).map(([name, { type, help, labels }]) => {
    const words = labels.map((label) => `\`${label}\``).join(', ');
    return `| \`${name}\` | ${type} | ${words} | ${help} |`;
  });
  return `${GENERATED}
# Metrics

At \`/metrics\` of the operators' listener (\`ops\`, port 9464), in base units. A counter counts what its process did; what is said to be *of the cell*
is the same in every process that shows it: take the maximum, not the sum. No label names an agent, a task, a lease or a SPIFFE ID. What cannot be
read from the store at the moment is left out. Beside these, every process shows the usual \`process_…\` and \`nodejs_…\`.

| metric | type | labels | meaning |
|---|---|---|---|
${rows.join('\n')}
`;
}

interface Schema {
  type?: string | string[];
  description?: string;
  default?: unknown;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  anyOf?: Schema[];
  oneOf?: Schema[];
  enum?: unknown[];
  const?: unknown;
  minimum?: number;
  maximum?: number;
  additionalProperties?: Schema | boolean;
}

function configPage(): string {
  const schema = z.toJSONSchema(configSchema, { io: 'input', unrepresentable: 'any' }) as Schema;
  const rows = settingsOf(schema, '');
  const environment = Object.entries(ENVIRONMENT).map(([name, path]) => `| \`${name}\` | \`${path.join('.')}\` |`);
  return `${GENERATED}
# Configuration

One YAML file (\`mayfly start --config FILE\`), the environment over it. Unknown keys are refused. \`mayfly config check\` says what is wrong
without starting.

| setting | type | default | meaning |
|---|---|---|---|
${rows.join('\n')}

## Environment

| variable | setting |
|---|---|
${environment.join('\n')}
`;
}

function settingsOf(schema: Schema, path: string): string[] {
  const rows: string[] = [];
  for (const [name, member] of Object.entries(schema.properties ?? {})) {
    const at = path === '' ? name : `${path}.${name}`;
    const named = typeof member.additionalProperties === 'object' ? member.additionalProperties : undefined;
    const below = member.items ?? named;
    const inner = member.properties ? [member] : below ? variantsOf(below) : [];
    const byDefault =
      member.default === undefined || typeof member.default === 'object' ? '' : `\`${JSON.stringify(member.default)}\``;
    const needed = schema.required?.includes(name) && member.default === undefined ? '**required**' : byDefault;
    rows.push(`| \`${at}\` | ${typeOf(member)} | ${needed} | ${(member.description ?? '').replaceAll('|', '\\|')} |`);
    const seen = new Set<string>();
    for (const variant of inner.length > 0 ? inner : variantsOf(member)) {
      for (const row of settingsOf(variant, member.items ? `${at}[]` : named ? `${at}.NAME` : at)) {
        if (!seen.has(row)) rows.push(row);
        seen.add(row);
      }
    }
  }
  return rows;
}

function variantsOf(schema: Schema): Schema[] {
  return (schema.anyOf ?? schema.oneOf ?? (schema.properties ? [schema] : [])).flatMap((one) =>
    one.properties ? [one] : variantsOf(one),
  );
}

function typeOf(schema: Schema): string {
  if (schema.const !== undefined) return `\`${JSON.stringify(schema.const)}\``;
  if (schema.enum) return schema.enum.map((value) => `\`${String(value)}\``).join(', ');
  if (schema.type === 'array') return 'list';
  if (schema.properties ?? schema.anyOf ?? schema.oneOf) return 'mapping';
  const range =
    schema.minimum !== undefined && schema.maximum !== undefined && schema.maximum < 2 ** 53 - 1
      ? ` ${schema.minimum} to ${schema.maximum}`
      : '';
  return `${String(schema.type ?? 'any')}${range}`;
}

function commandPage(): string {
  return `${GENERATED}
# Command line

Data goes to standard output, talk to standard error. Exit codes: 0 ok, 1 usage, 2 server, 3 denied, 4 waiting for approval.

Every command takes \`-o json|table\`, \`--field NAME\` (one bare value) and \`--as WHO\` (a development identity: \`/agent/x\`, \`operator-2\`,
\`auditor-1\`). The broker is the development one of \`MAYFLY_DATA\` (default \`.data\`), or \`MAYFLY_ADDR\` with an identity from
\`MAYFLY_JWT_SVID_FILE\`, \`MAYFLY_CERT_FILE\` and \`MAYFLY_KEY_FILE\`, or \`MAYFLY_PERSON_TOKEN_FILE\`; \`MAYFLY_CA_FILE\` and \`MAYFLY_ISSUER\`
where needed.

${commandsOf(program(), '').join('\n')}`;
}

const COMMON = ['--output', '--field', '--as', '--version'];

function commandsOf(command: Command, above: string): string[] {
  const name = `${above}${command.name()}`;
  if (command.commands.length > 0 && command.name() !== 'dev') {
    return command.commands.flatMap((below) => commandsOf(below, `${name} `));
  }
  const words = command.registeredArguments.map((one) => {
    const label = `${one.name()}${one.variadic ? '…' : ''}`;
    return one.required ? `<${label}>` : `[${label}]`;
  });
  const options = command.options.filter((option) => !option.hidden && !COMMON.includes(option.long ?? ''));
  const page = [`## \`${[name, ...words].join(' ')}\``, '', `${sentence(command.description())}`, ''];
  for (const option of options) page.push(`- \`${option.flags}\`: ${option.description}`);
  if (options.length > 0) page.push('');
  return [...page, ...command.commands.flatMap((below) => commandsOf(below, `${name} `))];
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.?!]$/.test(text) ? '' : '.'}`;
}
