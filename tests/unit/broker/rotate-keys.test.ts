import { PUBLISHED_BEFORE_USE_MS } from '../../../src/broker/rotate-keys.js';
import { keyRing } from '../../../src/main/key-ring.js';
import { type FakeDoor, openFakeDoor } from '../../fakes/door.js';
import { type Answer, type Knock, knockAt } from '../../fakes/knock.js';
import { VirtualClock } from '../../fakes/virtual-clock.js';

let clock: VirtualClock;
let door: FakeDoor;
let knock: Knock;

beforeEach(async () => {
  clock = new VirtualClock(Date.now());
  door = await openFakeDoor({ clock });
  knock = knockAt(door);
});
afterEach(() => door.close());

/** As an operator who signs in anew each time: the clock is turned by minutes here. */
async function operate(method: string, path: string, body?: unknown): Promise<Answer> {
  return (await knock.operator('operator-1'))(method, path, body);
}

async function prepared(alg = 'ES256'): Promise<string> {
  const { status, body } = await operate('POST', '/v1/keys', { alg });
  expect([status, body.state, body.alg]).toEqual([201, 'prepare', alg]);
  return body.kid;
}

const activate = (kid: string) => operate('POST', `/v1/keys/${kid}/activate`);
const taint = (kid: string) => operate('POST', `/v1/keys/${kid}/taint`, { reason: 'it was seen in a log' });

async function states(): Promise<Record<string, string>> {
  const { body } = await operate('GET', '/v1/keys');
  return Object.fromEntries(body.items.map(({ kid, state }: { kid: string; state: string }) => [kid, state]));
}

async function published(): Promise<string[]> {
  const { body } = await knock.api('GET', '/.well-known/jwks.json', undefined);
  return body.keys.map(({ kid }: { kid: string }) => kid);
}

async function signer(): Promise<string> {
  return Object.entries(await states()).find(([, state]) => state === 'active')?.[0] as string;
}

async function mint(): Promise<{ token: string; kid: string }> {
  const { token, header } = await knock.minted(knock.exchange('/agent/refunds', await knock.task()));
  return { token, kid: header['kid'] };
}

const isActive = async (token: string): Promise<boolean> => (await knock.introspect(token)).body.active;

describe('a key that is prepared', () => {
  it('is published at once and signs nothing', async () => {
    const first = await signer();
    const next = await prepared();
    expect(await published()).toEqual(expect.arrayContaining([first, next]));
    expect((await mint()).kid).toBe(first);
  });

  it('signs only after every cached JWKS has it: 409 until then, with the seconds to wait', async () => {
    const first = await signer();
    const next = await prepared();
    clock.advance(PUBLISHED_BEFORE_USE_MS - 1_000);
    const early = await activate(next);
    expect([early.status, early.body.code]).toEqual([409, 'conflict']);
    expect(early.body.hint).toContain('Try again in 1 s');
    expect((await mint()).kid).toBe(first);
    clock.advance(1_000);
    expect((await activate(next)).body.state).toBe('active');
    expect((await mint()).kid).toBe(next);
  });

  it('is published for longer than a JWKS may be kept', async () => {
    const { headers } = await knock.api('GET', '/.well-known/jwks.json', undefined);
    const seconds = Number(/max-age=(\d+)/.exec(headers.get('cache-control') ?? '')?.[1]);
    expect(seconds).toBeGreaterThan(0);
    expect(seconds * 1_000).toBeLessThan(PUBLISHED_BEFORE_USE_MS);
  });
});

describe('a rotation', () => {
  it('refuses no token: what the key before signed counts until its own end, and the key leaves after that', async () => {
    const first = await signer();
    const next = await prepared('RS256');
    clock.advance(PUBLISHED_BEFORE_USE_MS);
    const { token } = await mint();
    await activate(next);
    expect(await states()).toEqual({ [first]: 'retiring', [next]: 'active' });
    expect(await published()).toContain(first);
    clock.advance(290_000);
    expect(await isActive(token)).toBe(true);
    clock.advance(door.parts.settings.ttlMsMax + 61_000 - 290_000);
    await prepared();
    expect(await states()).not.toHaveProperty(first);
    expect(await published()).not.toContain(first);
  });

  it('repeated is the same, and a retired key does not come back', async () => {
    const first = await signer();
    const next = await prepared();
    clock.advance(PUBLISHED_BEFORE_USE_MS);
    expect([(await activate(next)).status, (await activate(next)).status]).toEqual([200, 200]);
    expect((await activate(first)).status).toBe(409);
    expect((await activate('es256-nobody')).status).toBe(404);
  });

  it('by two people at once leaves one key that signs, and loses none', async () => {
    const [one, other] = [await prepared(), await prepared()];
    clock.advance(PUBLISHED_BEFORE_USE_MS);
    await Promise.all([activate(one), activate(other)]);
    const after = await states();
    expect(Object.values(after).sort()).toEqual(['active', 'retiring', 'retiring']);
    expect(Object.keys(after)).toEqual(expect.arrayContaining([one, other]));
  });

  it('is seen by another broker with its next look', async () => {
    const elsewhere = keyRing(door.parts.views);
    await elsewhere.refresh();
    const next = await prepared();
    clock.advance(PUBLISHED_BEFORE_USE_MS);
    await activate(next);
    await elsewhere.refresh();
    expect(elsewhere.active().kid).toBe(next);
  });

  it.each([
    ['a bearer', (path: string) => knock.api('POST', path, '/orchestrator/workflow', {}), 403],
    ['nobody', (path: string) => knock.api('POST', path, undefined, {}), 401],
  ])('by %s is refused, and nothing moves', async (_, send, status) => {
    const before = await states();
    expect((await send('/v1/keys')).status).toBe(status);
    expect(await states()).toEqual(before);
  });

  it('by somebody who is not an operator is refused, however bound', async () => {
    const auditor = await knock.operator('auditor-1', ['mayfly-auditors']);
    expect((await auditor('POST', '/v1/keys', {})).status).toBe(403);
  });

  it('shows nobody a private half, and leaves a record', async () => {
    const kid = await prepared();
    const { text } = await operate('GET', '/v1/keys');
    expect(text).not.toMatch(/private|PRIVATE|"d"/);
    expect(door.parts.line.state.audit).toContainEqual(
      expect.objectContaining({ type: 'key.moved', action: 'prepare', detail: { kid, state: 'prepare' } }),
    );
  });
});

describe('a tainted key', () => {
  it('kills its tokens at once, is no longer published, and the next one signs without a wait', async () => {
    const { token, kid } = await mint();
    expect((await taint(kid)).body.state).toBe('tainted');
    expect(await isActive(token)).toBe(false);
    expect(await published()).not.toContain(kid);
    const after = await mint();
    expect(after.kid).not.toBe(kid);
    expect(await isActive(after.token)).toBe(true);
  });

  it('is followed by the one that was prepared, if there is one', async () => {
    const first = await signer();
    const next = await prepared();
    await taint(first);
    expect(await states()).toEqual({ [first]: 'tainted', [next]: 'active' });
  });

  it('raises an alarm at each later use, at whichever door, and the record names the lease', async () => {
    const { token, kid } = await mint();
    const own = await knock.minted(knock.exchange('/agent/refunds', await knock.task(), { resource: door.url }));
    await taint(kid);
    const alarms = () => door.parts.events.filter(({ event }) => event === 'key.tainted_use');
    const records = () => door.parts.line.state.audit.filter(({ type }) => type === 'key.tainted_use');
    await knock.introspect(token);
    await knock.api('GET', '/v1/tasks', undefined, undefined, { authorization: `Bearer ${own.token}` });
    await knock.introspect(token);
    expect(alarms()).toHaveLength(3);
    expect(alarms()[0]).toMatchObject({ level: 'error', kid });
    expect(records().map(({ effect }) => effect)).toEqual(['deny', 'deny', 'deny']);
    expect(records()[0]?.lease).toBe(
      JSON.parse(Buffer.from(token.split('.')[1] as string, 'base64url').toString()).jti,
    );
    expect(JSON.stringify(records())).not.toContain(token);
  });

  it('raises none for a signature that it did not make', async () => {
    const { token, kid } = await mint();
    await taint(kid);
    const [head, body] = token.split('.');
    expect(await isActive(`${head}.${body}.${'A'.repeat(86)}`)).toBe(false);
    expect(door.parts.events.filter(({ event }) => event === 'key.tainted_use')).toEqual([]);
  });

  it('stays in the ring for good, never signs again, and keeps no private half', async () => {
    const { kid } = await mint();
    await taint(kid);
    clock.advance(30 * 86_400_000);
    await prepared();
    expect((await states())[kid]).toBe('tainted');
    expect((await activate(kid)).status).toBe(409);
    expect(door.parts.keys.byKid(kid)).not.toHaveProperty('privateKey');
  });

  it('is told to enforcement points in the same step, whatever the position of a token', async () => {
    const { kid } = await mint();
    await taint(kid);
    expect(door.parts.line.state.entries).toContainEqual(expect.objectContaining({ match: { key: kid } }));
  });
});
