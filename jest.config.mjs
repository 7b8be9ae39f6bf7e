const common = {
  extensionsToTreatAsEsm: ['.ts'],
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': '$1' },
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      { jsc: { target: 'es2022', parser: { syntax: 'typescript' } }, module: { type: 'es6' }, sourceMaps: 'inline' },
    ],
  },
  testEnvironment: 'node',
  setupFiles: ['<rootDir>/src/plugins/policy/v8-flag.ts'],
};

// Three suites: `fast` needs no service at all, `real` starts real Redis, PostgreSQL and processes itself,
// `peers` needs the real peers that scripts/peers.sh fetches (SPIRE, OpenBao, Valkey, helm, kubernetes-validate).
// The conformance of backends is held against the real thing, so it is not one of the fast ones.
const BACKENDS = '<rootDir>/tests/conformance/backends.test.ts';
const suites = {
  fast: ['unit', 'http', 'conformance', 'architecture', 'properties'],
  real: ['state', 'backends', 'e2e', 'docs'],
  peers: ['peers'],
};

export default {
  workerIdleMemoryLimit: '384MB',
  testTimeout: 30_000,
  projects: Object.entries(suites).map(([displayName, folders]) => ({
    ...common,
    displayName,
    rootDir: import.meta.dirname,
    testMatch: [
      ...folders.map((folder) => `<rootDir>/tests/${folder}/**/*.test.ts`),
      ...(displayName === 'real' ? [BACKENDS] : []),
    ],
    testPathIgnorePatterns: ['/node_modules/', ...(displayName === 'fast' ? [BACKENDS] : [])],
  })),
};
