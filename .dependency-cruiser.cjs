// The walls between the rooms (docs/architecture.md). tests/architecture/walls.test.ts plants violations and sees them caught.
const room = (name) => `^src/${name}/`;
const vendor = (names) => `^node_modules/(${names.join('|')})(/|$)`;
const forbid = (name, from, to, comment) => ({ name, comment, severity: 'error', from, to });

const rule = (name, roomPath, allowed, comment) =>
  forbid(name, { path: roomPath }, { pathNot: allowed, dependencyTypesNot: ['core'] }, comment);

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    forbid('no-circular', {}, { circular: true }, 'Rooms and files form no circles.'),
    forbid('unresolvable', {}, { couldNotResolve: true }, 'Everything imported exists.'),
    rule(
      'core-is-alone',
      room('core'),
      [room('core')],
      'core holds words and rules: it imports itself and node:crypto only.',
    ),
    forbid(
      'core-no-io',
      { path: room('core') },
      { dependencyTypes: ['core'], pathNot: '^(node:)?crypto$' },
      'core does no I/O.',
    ),
    rule(
      'broker-sees-contracts',
      room('broker'),
      [room('core'), room('broker'), '^src/plugins/[^/]+/contract\\.ts$', '^src/state/stores\\.ts$'],
      'Verbs see contracts, never vendors.',
    ),
    rule(
      'plugins-see-core',
      room('plugins'),
      [room('core'), room('plugins'), '^node_modules/'],
      'A plugin sees core, its family and its vendors.',
    ),
    forbid(
      'plugin-families-apart',
      { path: '^src/plugins/([^/]+)/' },
      { path: '^src/plugins/[^/]+/', pathNot: ['^src/plugins/$1/'] },
      'Plugin families do not see each other.',
    ),
    rule(
      'state-sees-core',
      room('state'),
      [room('core'), room('state'), vendor(['ioredis', 'bullmq'])],
      'state is the only room that speaks Redis.',
    ),
    rule(
      'edge-calls-verbs',
      room('edge'),
      [room('core'), room('broker'), room('edge'), vendor(['zod', 'express', '@types/express', 'helmet'])],
      'Doors call verbs, never Redis.',
    ),
    rule(
      'client-stands-alone',
      room('client'),
      [room('core'), room('client'), vendor(['jose'])],
      'What others import needs jose and core only.',
    ),
    forbid('nobody-imports-main', { pathNot: room('main') }, { path: room('main') }, 'main wires; nobody imports it.'),
    forbid(
      'dev-only-from-dev',
      { path: '^src/', pathNot: ['^src/main/dev/', '^src/main/cli/dev[^/]*\\.ts$', '^src/main/cli/identity\\.ts$'] },
      { path: '^src/main/dev/' },
      'Only `mayfly dev` and the development identities import the development parts.',
    ),
    forbid(
      'redis-in-state',
      { pathNot: room('state') },
      { path: vendor(['ioredis', 'bullmq']) },
      'ioredis and bullmq are imported in state only.',
    ),
    forbid(
      'express-in-http',
      { pathNot: [room('edge/http'), room('client')] },
      { path: vendor(['express']) },
      'express is imported in edge/http only.',
    ),
    forbid(
      'zod-not-in-broker',
      { path: '^src/(core|broker|state|client)/' },
      { path: vendor(['zod']) },
      'Shapes are checked at the doors and in plugins.',
    ),
    forbid(
      'main-vendors',
      { path: '^src/', pathNot: room('main') },
      { path: vendor(['pino', 'prom-client', 'commander', 'picocolors', 'cli-table3']) },
      'Logs, metrics and the command line belong to main.',
    ),
  ],
  options: {
    parser: 'swc',
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    preserveSymlinks: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default'],
      extensions: ['.ts', '.js'],
    },
  },
};
