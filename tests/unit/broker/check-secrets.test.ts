import { z } from 'zod';
import { problemsOfSettings, secretChecks } from '../../../src/broker/check-secrets.js';
import type { Bundle, SecretDeclaration } from '../../../src/core/bundle.js';
import type { OperationalEvent } from '../../../src/core/observe.js';
import { type Backend, BackendProblem } from '../../../src/plugins/backends/contract.js';
import { fakeBundle } from '../../fakes/policy.js';
import { VirtualClock } from '../../fakes/virtual-clock.js';

const settings = (groups: unknown) => ({ groups });
const declared = (name: string, backend: string, groups: unknown): SecretDeclaration => ({
  name,
  backend,
  sensitivity: 'internal',
  ttlMsMax: 60_000,
  settings: settings(groups),
});

function bundleWith(...secrets: SecretDeclaration[]): Bundle {
  return { ...fakeBundle('with secrets'), secrets: new Map(secrets.map((secret) => [secret.name, secret])) };
}

/** A backend of which only the check matters; its answers are set by the test. */
function world(first: Bundle) {
  const tried: string[] = [];
  const events: OperationalEvent[] = [];
  const clock = new VirtualClock();
  let bundle: Bundle | undefined = first;
  let answer: (name: string) => Promise<string[]> = async () => [];
  let onBack = () => {};
  const backend = {
    guard: {
      onBack: (listener: () => void) => {
        onBack = listener;
      },
    },
    name: 'db',
    kind: 'fake',
    secretSettings: z.strictObject({ groups: z.array(z.string()) }),
    check: ({ name }: { name: string }) => {
      tried.push(name);
      return answer(name);
    },
  } as unknown as Backend;
  const backends = {
    get: (name: string) => (name === 'db' ? backend : undefined),
    all: () => [backend],
    close: async () => undefined,
  };
  const policies = { current: () => bundle && { bundle } } as unknown as Parameters<typeof secretChecks>[0]['policies'];
  return {
    checks: secretChecks({ backends, policies, clock, observe: (event) => events.push(event) }),
    backends,
    isBack: () => onBack(),
    tried,
    events,
    clock,
    activate: (next: Bundle) => {
      bundle = next;
    },
    answers: (next: typeof answer) => {
      answer = next;
    },
  };
}

describe('a declared secret', () => {
  it('is closed until its backend has tried it', async () => {
    const { checks } = world(bundleWith(declared('orders', 'db', ['a'])));
    expect(checks.problemOf('orders')).toBe('it has not been tried yet');
    await checks.tick();
    expect(checks.problemOf('orders')).toBeUndefined();
  });

  it('that nobody declares is closed', async () => {
    const { checks } = world(bundleWith());
    await checks.tick();
    expect(checks.problemOf('orders')).toBe('it is not declared');
  });

  it('of a backend that this broker does not have is closed, and not tried again and again', async () => {
    const { checks, clock, tried } = world(bundleWith(declared('orders', 'elsewhere', ['a'])));
    await checks.tick();
    clock.advance(3_600_000);
    await checks.tick();
    expect(checks.problemOf('orders')).toBe('this broker has no backend elsewhere');
    expect(tried).toEqual([]);
  });

  it('whose settings the backend does not take is closed, and the field is named', async () => {
    const { checks, tried } = world(bundleWith(declared('orders', 'db', 7)));
    await checks.tick();
    expect(checks.problemOf('orders')).toMatch(/^settings\.groups: /);
    expect(tried).toEqual([]);
  });

  it('that fails its try is closed with every reason, and open as soon as a later try works', async () => {
    const { checks, clock, answers, events } = world(bundleWith(declared('orders', 'db', ['a'])));
    answers(async () => ['The group owns a table.', 'PUBLIC may connect.']);
    await checks.tick();
    expect(checks.problemOf('orders')).toBe('The group owns a table. PUBLIC may connect.');
    answers(async () => []);
    clock.advance(1_000);
    await checks.tick();
    expect(checks.problemOf('orders')).toBeUndefined();
    expect(events.map(({ event }) => event)).toEqual(['secret.closed', 'secret.open']);
  });

  it('whose backend is down is tried ever more slowly, a minute apart at the most, for ever', async () => {
    const { checks, clock, answers, tried } = world(bundleWith(declared('orders', 'db', ['a'])));
    answers(async () => {
      throw new BackendProblem('unreachable', 'no answer');
    });
    const atSeconds: number[] = [];
    for (let second = 0; second <= 400; second++) {
      const before = tried.length;
      await checks.tick();
      if (tried.length > before) atSeconds.push(second);
      clock.advance(1_000);
    }
    expect(atSeconds).toEqual([0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363]);
    expect(checks.problemOf('orders')).toBe('no answer');
  });

  it('is tried at once when its backend answers again', async () => {
    const { checks, clock, answers, isBack } = world(bundleWith(declared('orders', 'db', ['a'])));
    answers(async () => {
      throw new BackendProblem('unreachable', 'no answer');
    });
    for (let second = 0; second < 70; second++) {
      await checks.tick();
      clock.advance(1_000);
    }
    answers(async () => []);
    isBack();
    await checks.tick();
    expect(checks.problemOf('orders')).toBeUndefined();
  });

  it('stays open when another one fails', async () => {
    const { checks, answers } = world(bundleWith(declared('good', 'db', ['a']), declared('bad', 'db', ['b'])));
    answers(async (name) => (name === 'bad' ? ['no'] : []));
    await checks.tick();
    expect([checks.problemOf('good'), checks.problemOf('bad')]).toEqual([undefined, 'no']);
  });

  it('that is declared otherwise is closed until it was tried as it is now; the others are not tried again', async () => {
    const { checks, activate, tried } = world(bundleWith(declared('a', 'db', ['a']), declared('b', 'db', ['b'])));
    await checks.tick();
    activate(bundleWith(declared('a', 'db', ['other']), declared('b', 'db', ['b'])));
    expect([checks.problemOf('a'), checks.problemOf('b')]).toEqual(['it has not been tried yet', undefined]);
    await checks.tick();
    expect(checks.problemOf('a')).toBeUndefined();
    expect(tried).toEqual(['a', 'b', 'a']);
  });

  it('that left the bundle is closed', async () => {
    const { checks, activate } = world(bundleWith(declared('a', 'db', ['a'])));
    await checks.tick();
    activate(bundleWith());
    expect(checks.problemOf('a')).toBe('it is not declared');
  });

  it('is tried once at a time, whoever asks', async () => {
    const { checks, answers, tried } = world(bundleWith(declared('a', 'db', ['a'])));
    let go = () => {};
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    answers(() => gate.then(() => []));
    const all = Promise.all([checks.tick(), checks.checkBackend('db'), checks.tick()]);
    go();
    await all;
    expect(tried).toEqual(['a']);
  });

  it('that is open can be tried by hand, and closes when that fails', async () => {
    const { checks, answers } = world(bundleWith(declared('a', 'db', ['a'])));
    await checks.tick();
    answers(async () => ['its group is gone']);
    await checks.checkBackend('db');
    expect(checks.problemOf('a')).toBe('its group is gone');
  });

  it('fails closed when the kind lets out something that is no error', async () => {
    const { checks, answers } = world(bundleWith(declared('a', 'db', ['a'])));
    answers(() => Promise.reject('a string'));
    await checks.tick();
    expect(checks.problemOf('a')).toBe('it could not be tried');
  });
});

describe('settings in a bundle', () => {
  it('are refused by secret and field; those of backends that are not here are left to who has them', () => {
    const bundle = bundleWith(
      declared('good', 'db', ['a']),
      declared('bad', 'db', 'x'),
      declared('far', 'elsewhere', 1),
    );
    expect(problemsOfSettings(world(bundle), bundle)).toEqual([
      expect.stringMatching(/^secret bad: settings\.groups: .* \(backend db\)$/),
    ]);
  });
});
