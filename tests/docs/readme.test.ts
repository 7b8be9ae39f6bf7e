import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { freePort } from '../../src/main/dev/free-port.js';
import { until } from '../e2e/brokers.js';

const README = readFileSync('README.md', 'utf8');

/** The README's shell blocks that carry a name, in the order they stand there. */
const BLOCKS = [...README.matchAll(/<!-- test: ([a-z-]+) -->\n```sh\n([\s\S]*?)```/g)].map(([, name, text]) => ({
  name: name as string,
  text: text as string,
}));

/** The programs that the README has its reader save, by the file's name. */
const PROGRAMS = [...README.matchAll(/<!-- test: ([a-z]+\.mjs) -->\n```ts\n([\s\S]*?)```/g)].map(([, name, text]) => ({
  name: name as string,
  text: text as string,
}));

/** What each block has to say, and how its last command has to end. */
const EXPECTED: Record<string, { exit: number; says: RegExp }> = {
  'by-hand': { exit: 0, says: /spiffe:\/\/dev\.mayfly\/agent\/refunds[\s\S]*"username": "mayfly_[\s\S]*completed/ },
  refused: { exit: 3, says: /Refused: the token was revoked\. \(revoked\)[\s\S]*completed/ },
  'curl-token': { exit: 0, says: /"access_token":"ey/ },
  orchestrate: { exit: 0, says: /I may \[ 'orders\.read' \]\nI am mayfly_\w+/ },
  run: { exit: 0, says: /I am mayfly_\w+[\s\S]*credential\.issued/ },
  'curl-task': { exit: 0, says: /"state":"completed"/ },
  tool: {
    exit: 0,
    says: /\{"order":"42","agent":"spiffe:\/\/dev\.mayfly\/agent\/refunds"\}[\s\S]*completed[\s\S]*"error":"invalid_token"/,
  },
  stop: { exit: 0, says: /Effective now; lock lck_/ },
  receipt: { exit: 0, says: /reason: 'odd refunds'[\s\S]*enumeration: 'finished'/ },
  lift: { exit: 0, says: /requested[\s\S]*lifted/ },
  operate: { exit: 0, says: /Grants are open[\s\S]*ok {3}orders-db[\s\S]*ES256[\s\S]*sha256:[\s\S]*0 failed/ },
};

describe('the README', () => {
  it('has a test for each of its blocks and a block for each of the tests', () => {
    expect(BLOCKS.map((block) => block.name)).toEqual(Object.keys(EXPECTED));
  });

  it('names every program that it has its reader save in a command', () => {
    expect(PROGRAMS.map((program) => program.name)).toEqual([
      'orchestrator.mjs',
      'agent.mjs',
      'tool.mjs',
      'receipt.mjs',
    ]);
  });

  it('leaves no command untested but those that fetch and start', () => {
    const all = [...README.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, text]) => text as string);
    const untested = all.filter((text) => !BLOCKS.some((block) => block.text === text));
    expect(untested).toEqual([expect.stringMatching(/^git clone .*\nnpm start\n$/)]);
  });

  it('links to nothing that is not there, and neither do the pages below docs', () => {
    const pages = ['README.md', 'CONTRIBUTING.md', 'SECURITY.md', ...markdownBelow('docs')];
    const broken = pages.flatMap((page) =>
      [...readFileSync(page, 'utf8').matchAll(/\]\(([^)#\s]+)(#[^)]*)?\)/g)]
        .map(([, target]) => target as string)
        .filter((target) => !/^[a-z]+:/.test(target) && !existsSync(join(dirname(page), target)))
        .map((target) => `${page}: ${target}`),
    );
    expect(broken).toEqual([]);
  });

  it('shows a tool that compiles in a strict project of somebody else’s, and so does the guide', () => {
    const project = mkdtempSync(join(tmpdir(), 'mayfly-typed-'));
    try {
      mkdirSync(join(project, 'node_modules'));
      symlinkSync(resolve('.'), join(project, 'node_modules/mayfly'));
      for (const name of ['express', '@types'])
        symlinkSync(resolve('node_modules', name), join(project, 'node_modules', name));
      const guide = readFileSync('docs/guides/protect-a-tool.md', 'utf8');
      const shown = [
        ...PROGRAMS.filter(({ name }) => name === 'tool.mjs'),
        ...[...guide.matchAll(/<!-- test: ([a-z-]+\.ts) -->\n```ts\n([\s\S]*?)```/g)].map(([, name, text]) => ({
          name: name as string,
          text: text as string,
        })),
      ].map(({ name, text }) => ({ name: name.replace('.mjs', '.ts'), text }));
      expect(shown.map(({ name }) => name)).toEqual(['tool.ts', 'decision-point.ts']);
      for (const { name, text } of shown) writeFileSync(join(project, name), text);
      writeFileSync(join(project, 'package.json'), '{"type":"module"}');
      const options = ['--strict', '--noEmit', '--module', 'nodenext', '--target', 'es2022', '--types', 'node'];
      const tsc = resolve('node_modules/typescript/bin/tsc');
      const { stdout } = spawnSync(process.execPath, [tsc, ...options, ...shown.map(({ name }) => name)], {
        cwd: project,
        encoding: 'utf8',
      });
      expect(stdout).toBe('');
    } finally {
      rmSync(project, { recursive: true });
    }
  });

  describe('typed by hand next to a development broker', () => {
    const dir = mkdtempSync(join(tmpdir(), 'mayfly-readme-'));
    let broker: ReturnType<typeof spawn>;
    let said = '';
    let url = '';

    beforeAll(async () => {
      // The user of PostgreSQL has to reach its data, which would stay behind elsewhere.
      chmodSync(dir, 0o711);
      // `npx mayfly` in a clone runs bin/mayfly.js; the shim spares npx its look at the registry.
      mkdirSync(join(dir, 'bin'));
      writeFileSync(
        join(dir, 'bin/npx'),
        `#!/bin/sh\nshift\nexec "${process.execPath}" "${resolve('bin/mayfly.js')}" "$@"\n`,
        { mode: 0o755 },
      );
      broker = spawn(process.execPath, [resolve('scripts/start.mjs'), '--port', '0', '--data', join(dir, 'data')], {
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      for (const stream of [broker.stdout, broker.stderr])
        stream?.on('data', (chunk: Buffer) => (said += chunk.toString()));
      await until('the broker says how to go on by hand', 60_000, () => {
        if (broker.exitCode !== null) throw new Error(said);
        return said.includes('Do it by hand');
      });
      url = /Mayfly is up: (\S+)/.exec(said)?.[1] as string;
    }, 90_000);

    afterAll(async () => {
      if (broker.exitCode === null) {
        const gone = once(broker, 'exit');
        broker.kill('SIGTERM');
        await gone;
      }
      rmSync(dir, { recursive: true, force: true });
    });

    it('npm start plays the story: identified, a token, let in, completed, refused, each with its milliseconds', () => {
      const steps = [
        'SPIFFE identity',
        'got a token',
        'let it in',
        'got a database user',
        'read order 42 in PostgreSQL',
        'completed',
        'refuses the same token: revoked',
        'gets no other one',
        'PostgreSQL cut the open connection \\(57P01\\)',
        'refuses the next login itself: its role is not permitted to log in \\(28000\\)',
        'on record: verified-dead',
      ];
      for (const step of steps) expect(said).toMatch(new RegExp(`\\d+\\.\\d ms .*${step}`));
    });

    it('every block does what the README says, one after the other', async () => {
      const toolPort = await freePort();
      const asHere = (text: string) =>
        text.replaceAll('http://127.0.0.1:7117', url).replaceAll('8080', String(toolPort));
      // Variables of one block are used in the next: all run in one shell, each ends with its own exit code.
      const marks = BLOCKS.map(({ name, text }) => `echo "<<${name}>>"\n${text}echo "<<exit $?>>"\n`);
      const script = asHere(marks.join(''));
      // As in a clone: the sample bundle is in `config`, and the package finds itself by its name and its dependencies beside it.
      const clone = join(dir, 'clone');
      mkdirSync(join(clone, 'node_modules'), { recursive: true });
      symlinkSync(resolve('.'), join(clone, 'node_modules/mayfly'));
      symlinkSync(resolve('config'), join(clone, 'config'));
      for (const name of ['jose', 'express'])
        symlinkSync(resolve('node_modules', name), join(clone, 'node_modules', name));
      for (const { name, text } of PROGRAMS) writeFileSync(join(clone, name), asHere(text));
      const { stdout } = spawnSync('bash', ['-c', `exec 2>&1\n${script}`], {
        cwd: clone,
        encoding: 'utf8',
        env: { ...process.env, PATH: `${join(dir, 'bin')}:${process.env['PATH']}`, MAYFLY_DATA: join(dir, 'data') },
      });
      for (const { name } of BLOCKS) {
        const part = stdout.slice(stdout.indexOf(`<<${name}>>`));
        const own = part.slice(0, part.indexOf('<<exit') + 12);
        expect([name, own]).toEqual([name, expect.stringMatching(EXPECTED[name]?.says as RegExp)]);
        expect([name, /<<exit (\d+)>>/.exec(own)?.[1]]).toEqual([name, String(EXPECTED[name]?.exit)]);
      }
    }, 120_000);
  });
});

function markdownBelow(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => join(dir, name));
}
