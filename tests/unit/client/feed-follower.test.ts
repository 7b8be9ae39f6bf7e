import { FeedFollower, type FeedFollowerOptions } from '../../../src/client/feed-follower.js';
import { steadyClock } from '../../../src/client/steady-clock.js';
import { nodeFetch } from '../../../src/client/transport.js';
import { writeFeedFrame } from '../../../src/core/feed-frames.js';
import { FakeIssuer } from '../../fakes/issuer.js';

let issuer: FakeIssuer;
let follower: FeedFollower;
let elapsedMs: number;
let identities: number;

async function following(options: Partial<FeedFollowerOptions> = {}): Promise<FeedFollower> {
  await follower?.close();
  follower = new FeedFollower({
    url: issuer.url,
    fetch: nodeFetch(),
    clock: steadyClock({ now: () => issuer.nowMs }, () => elapsedMs),
    authorization: async () => `svid-${++identities}`,
    retryMs: { first: 1, most: 5 },
    ...options,
  });
  return follower;
}

async function complete(): Promise<void> {
  expect(await follower.until(() => follower.complete, 5_000)).toBe(true);
}

const connections = () => issuer.seen.filter(({ path }) => path === '/v1/feed');
const connected = (count: number) => issuer.until(() => connections().length >= count);
const cursorOf = (at: number) => connections().at(at)?.headers['last-event-id'];

beforeEach(async () => {
  issuer = await new FakeIssuer().start();
  elapsedMs = 0;
  identities = 0;
});

afterEach(async () => {
  await follower.close();
  await issuer.stop();
});

describe('the snapshot', () => {
  it('is complete at its head, and not before', async () => {
    issuer.sendsHeads = false;
    issuer.revoke({ task: 'tsk_a_1' });
    await following();
    await connected(1);
    while (follower.table.size === 0) await new Promise((resolve) => setImmediate(resolve));
    expect(follower.complete).toBe(false);
    expect(follower.position).toBe('0-0-0');
    issuer.beat();
    await complete();
    expect(follower.position).toBe(issuer.head);
  });

  it('of an empty feed is complete too', async () => {
    await following();
    await complete();
    expect(follower.status()).toMatchObject({ complete: true, connected: true, entries: 0, ageMs: 0 });
  });

  it('may begin after entries that are gone: their end has passed', async () => {
    issuer.head = `${issuer.epoch}-500-0`;
    await following();
    await complete();
    expect(follower.position).toBe(issuer.head);
  });

  it('whose head is behind its own entries is not taken', async () => {
    issuer.revoke({ task: 'tsk_a_1' });
    const { head } = issuer;
    issuer.head = `${issuer.epoch}-0-1`;
    await following();
    await connected(3);
    expect(follower.complete).toBe(false);
    issuer.head = head;
    await complete();
  });
});

describe('entries', () => {
  it('are in the table and in the position as soon as they come', async () => {
    await following();
    await complete();
    const { pos } = issuer.revoke({ task: 'tsk_a_1' });
    expect(await follower.until(() => follower.position === pos, 5_000)).toBe(true);
    expect(follower.table.size).toBe(1);
  });

  it('twice or late change nothing', async () => {
    await following();
    await complete();
    const first = issuer.revoke({ task: 'tsk_a_1' });
    const second = issuer.revoke({ task: 'tsk_a_2' });
    issuer.send(writeFeedFrame({ kind: 'entry', entry: first }));
    issuer.beat();
    await issuer.until(() => issuer.acknowledged.includes(second.pos));
    expect([follower.table.size, follower.position]).toEqual([2, second.pos]);
    expect(connections()).toHaveLength(1);
  });

  it('split anywhere on their way are read whole', async () => {
    await following();
    await complete();
    const entry = issuer.revoke({ resource: 'https://ünïcode.example' }, { silently: true });
    const bytes = Buffer.from(writeFeedFrame({ kind: 'entry', entry }).replaceAll('\n', '\r\n'));
    for (const byte of bytes) issuer.sendBytes(Buffer.from([byte]));
    expect(await follower.until(() => follower.position === entry.pos, 5_000)).toBe(true);
    expect(follower.table.entries()).toEqual([entry]);
  });

  it('that cannot be evaluated are kept as wide as can be', async () => {
    await following();
    await complete();
    const pos = issuer.nextPosition();
    issuer.send(`event: revoke\ndata: ${JSON.stringify({ pos, until: 'soon', match: 'x' })}\n\n`);
    await follower.until(() => follower.position === pos, 5_000);
    expect(follower.table.entries()).toEqual([{ pos, untilMs: null, match: {} }]);
  });

  it('of an unknown kind are a gap at the next head, and a new snapshot', async () => {
    await following();
    await complete();
    const entry = issuer.revoke({ task: 'tsk_a_1' }, { silently: true });
    issuer.send(`event: revoke-later\ndata: {"pos":"${entry.pos}"}\n\n`);
    issuer.beat();
    await follower.until(() => follower.table.size === 1, 5_000);
    expect(cursorOf(1)).toBeUndefined();
    expect(follower.position).toBe(entry.pos);
  });

  it('are forgotten when they can kill nothing any more', async () => {
    await following();
    await complete();
    issuer.revoke({ task: 'tsk_a_1' });
    issuer.nowMs += 970_000;
    issuer.beat();
    expect(await follower.until(() => follower.table.size === 0, 5_000)).toBe(true);
  });
});

describe('what the feed does wrong', () => {
  it('a head ahead of the last entry is a gap: a new snapshot', async () => {
    await following();
    await complete();
    const missed = issuer.revoke({ task: 'tsk_a_1' }, { silently: true });
    issuer.beat();
    await follower.until(() => follower.position === missed.pos, 5_000);
    expect(cursorOf(1)).toBeUndefined();
    expect(follower.table.size).toBe(1);
  });

  it('a head behind the last entry received is one too', async () => {
    await following();
    await complete();
    const dropped = issuer.revoke({ task: 'tsk_a_1' }, { silently: true });
    const last = issuer.revoke({ task: 'tsk_a_2' });
    issuer.send(writeFeedFrame({ kind: 'head', position: dropped.pos }));
    await follower.until(() => follower.table.size === 2, 5_000);
    expect(follower.position).toBe(last.pos);
  });

  it('a head that goes back forces a new snapshot, and what was known stays known', async () => {
    const { pos } = issuer.revoke({ task: 'tsk_a_1' });
    await following();
    await complete();
    issuer.entries = [];
    issuer.head = `${issuer.epoch}-0-1`;
    issuer.beat();
    await connected(3);
    expect(cursorOf(1)).toBeUndefined();
    expect([follower.position, follower.table.size]).toEqual([pos, 1]);
    expect(follower.status().lastProblem).toBe('the snapshot is older than what is known');
  });

  it('while the feed is behind what is known, its age grows', async () => {
    issuer.revoke({ task: 'tsk_a_1' });
    await following();
    await complete();
    issuer.entries = [];
    issuer.head = `${issuer.epoch}-0-1`;
    elapsedMs = 7_000;
    issuer.beat();
    await connected(4);
    expect(follower.ageMs()).toBe(7_000);
  });

  it('a new epoch goes on from its first entry', async () => {
    await following();
    await complete();
    issuer.epoch++;
    const { pos } = issuer.revoke({ all: true });
    issuer.beat();
    await issuer.until(() => issuer.acknowledged.includes(pos));
    expect(follower.position).toBe(pos);
  });

  it.each([
    ['no JSON', 'event: revoke\ndata: {\n\n'],
    ['no position', 'event: revoke\ndata: {"match":{"all":true}}\n\n'],
    ['a head without a position', 'event: head\ndata: {"pos":"soon"}\n\n'],
    ['an event without an end', `event: revoke\ndata: ${'x'.repeat(300_000)}`],
  ])('%s ends the connection, not the following', async (_, text) => {
    await following();
    await complete();
    issuer.send(text);
    await connected(2);
    const { pos } = issuer.revoke({ task: 'tsk_a_1' }, { silently: true });
    issuer.cut();
    expect(await follower.until(() => follower.position === pos, 5_000)).toBe(true);
  });
});

describe('the connection', () => {
  it('when cut goes on from its position, with its identity asked anew', async () => {
    await following();
    await complete();
    const before = issuer.revoke({ task: 'tsk_a_1' });
    await follower.until(() => follower.position === before.pos, 5_000);
    issuer.cut();
    const missed = issuer.revoke({ task: 'tsk_a_2' }, { silently: true });
    expect(await follower.until(() => follower.position === missed.pos, 5_000)).toBe(true);
    expect(cursorOf(-1)).toBe(before.pos);
    expect(connections().at(-1)?.headers.authorization).not.toBe(connections()[0]?.headers.authorization);
  });

  it('when the broker ends it, is made again', async () => {
    await following();
    await complete();
    issuer.cut('end');
    await connected(2);
  });

  it('in silence is given up and made again', async () => {
    await following({ silenceMsMax: 30 });
    await complete();
    await connected(2);
    expect(cursorOf(1)).toBe(issuer.head);
  });

  it('when refused is tried again, and says why', async () => {
    issuer.feedStatus = 401;
    await following();
    await connected(3);
    expect(follower.status()).toMatchObject({ complete: false, connected: false });
    expect(follower.status().lastProblem).toContain('401');
    issuer.feedStatus = 200;
    await complete();
  });

  it('whose identity cannot be had is tried again', async () => {
    let asked = 0;
    await following({
      authorization: async () => {
        if (++asked < 3) throw new Error('no SVID yet');
        return 'svid';
      },
    });
    await complete();
    expect(asked).toBeGreaterThanOrEqual(3);
  });

  it('does not follow a redirect with its identity', async () => {
    const elsewhere = await new FakeIssuer().start();
    issuer.on('GET /v1/feed', () => ({ status: 307, headers: { location: `${elsewhere.url}/v1/feed` } }));
    await following();
    await connected(2);
    expect(elsewhere.seen).toEqual([]);
    await elsewhere.stop();
  });

  it('ends with the follower', async () => {
    await following();
    await complete();
    await follower.close();
    expect(await follower.until(() => false, 10)).toBe(false);
    expect(follower.status().connected).toBe(false);
  });
});

describe('acknowledgements', () => {
  it('name what was applied, once per place', async () => {
    await following();
    await complete();
    const { pos } = issuer.revoke({ task: 'tsk_a_1' });
    issuer.beat();
    issuer.beat();
    await issuer.until(() => issuer.acknowledged.includes(pos));
    expect(issuer.acknowledged).toEqual([`${issuer.epoch}-0-0`, pos]);
  });

  it('are repeated after a while, so that the broker sees who is alive', async () => {
    await following();
    await complete();
    await issuer.until(() => issuer.acknowledged.length === 1);
    elapsedMs += 15_000;
    issuer.beat();
    await issuer.until(() => issuer.acknowledged.length === 2);
    expect(new Set(issuer.acknowledged).size).toBe(1);
  });

  it('never name a head that was not reached', async () => {
    await following();
    await complete();
    issuer.feedStatus = 503;
    issuer.beat(`${issuer.epoch}-999-9`);
    await connected(3);
    expect(issuer.acknowledged).not.toContain(`${issuer.epoch}-999-9`);
  });

  it('that fail disturb nothing', async () => {
    issuer.on('POST /v1/feed/ack', () => ({ status: 503 }));
    await following();
    await complete();
    const { pos } = issuer.revoke({ task: 'tsk_a_1' });
    expect(await follower.until(() => follower.position === pos, 5_000)).toBe(true);
  });
});
