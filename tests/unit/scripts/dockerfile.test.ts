import { existsSync, readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { configSchema } from '../../../src/main/config.js';

const LINES = readFileSync('Dockerfile', 'utf8')
  .replaceAll('\\\n', ' ')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'));
const wordsOf = (instruction: string) =>
  LINES.filter((line) => line.startsWith(`${instruction} `)).map((line) => line.split(/\s+/).slice(1));
const lastStage = LINES.slice(LINES.findLastIndex((line) => line.startsWith('FROM ')));
const sent = readFileSync('.dockerignore', 'utf8').split('\n');

describe('the Dockerfile', () => {
  it('copies only what there is and what is sent to the builder', () => {
    const sources = wordsOf('COPY').flatMap((words) => (words[0]?.startsWith('--from=') ? [] : words.slice(0, -1)));
    expect(sources.length).toBeGreaterThan(5);
    for (const source of sources) {
      expect([source, existsSync(source)]).toEqual([source, true]);
      expect(sent).toContain(`!${source}`);
    }
  });

  it('sends nothing that it does not copy', () => {
    expect(sent.filter((line) => line !== '' && !line.startsWith('#') && !line.startsWith('!'))).toEqual(['*']);
    const copied = wordsOf('COPY').flat();
    for (const line of sent.filter((one) => one.startsWith('!'))) expect(copied).toContain(line.slice(1));
  });

  it('takes from other stages only what they are', () => {
    const stages = wordsOf('FROM').map((words) => words[2]);
    for (const [from] of wordsOf('COPY').filter(([first]) => first?.startsWith('--from='))) {
      expect(stages).toContain(from?.slice('--from='.length));
    }
  });

  it('installs from the lock file, without scripts, and without what is for development', () => {
    const installs = LINES.filter((line) => line.startsWith('RUN npm'));
    expect(installs).toHaveLength(2);
    for (const line of installs) expect(line).toMatch(/^RUN npm ci .*--ignore-scripts/);
    expect(lastStage.filter((line) => line.startsWith('RUN'))).toEqual([]);
    expect(lastStage.join('\n')).toMatch(/COPY --from=dependencies \/app\/node_modules/);
  });

  it('ends in an image without a shell, as a user by number that is not root, ready for what the chart asks of it', () => {
    expect(lastStage[0]).toMatch(/^FROM gcr\.io\/distroless\/.*:nonroot$/);
    expect(lastStage).toContain('USER 65532:65532');
    const values = parse(readFileSync('helm/mayfly/values.yaml', 'utf8'));
    expect(values.podSecurityContext.runAsUser).toBe(65532);
    const ports = [7117, values.mtls.port, values.ops.port].join(' ');
    expect(lastStage).toContain(`EXPOSE ${ports}`);
    expect(configSchema.shape.ops.parse({}).port).toBe(values.ops.port);
    expect(lastStage).toContain('ENTRYPOINT ["/nodejs/bin/node", "/app/bin/mayfly.js"]');
  });

  it('says in chart and image which version this is', () => {
    const { version } = JSON.parse(readFileSync('package.json', 'utf8'));
    const chart = parse(readFileSync('helm/mayfly/Chart.yaml', 'utf8'));
    expect([chart.version, chart.appVersion]).toEqual([version, version]);
    expect(lastStage).toContain(`ARG VERSION=${version}`);
  });
});
