import { type FeedFrame, readFeedFrame, writeFeedFrame } from '../../../src/core/feed-frames.js';

function parse(text: string): { event: string; data: string; id?: string } {
  const lines = text
    .trimEnd()
    .split('\n')
    .map((line) => line.split(/: (.*)/s).slice(0, 2));
  return Object.fromEntries(lines) as { event: string; data: string; id?: string };
}

it.each<FeedFrame>([
  { kind: 'reset' },
  { kind: 'head', position: '5-6-7' },
  { kind: 'entry', entry: { pos: '5-6-7', untilMs: 1_795_382_752_000, match: { task: 'tsk_a_x', sel: ['a', 'b'] } } },
  { kind: 'entry', entry: { pos: '5-6-8', untilMs: null, match: { key: 'k' } } },
])('what is written is read back: %j', (frame) => {
  const { event, data } = parse(writeFeedFrame(frame));
  expect(readFeedFrame(event, data)).toEqual(frame);
});

it('only an entry moves the cursor of whoever reads the stream', () => {
  const entry: FeedFrame = { kind: 'entry', entry: { pos: '5-6-7', untilMs: null, match: {} } };
  expect(parse(writeFeedFrame(entry)).id).toBe('5-6-7');
  expect(parse(writeFeedFrame({ kind: 'head', position: '5-6-7' })).id).toBeUndefined();
});

it('an end is rounded up: nothing is forgotten early', () => {
  const frame: FeedFrame = { kind: 'entry', entry: { pos: '5-6-7', untilMs: 1_000_001, match: {} } };
  const { event, data } = parse(writeFeedFrame(frame));
  expect(readFeedFrame(event, data)).toMatchObject({ entry: { untilMs: 1_001_000 } });
});

it.each([
  ['no match', '{"pos":"5-6-7","until":9}', { untilMs: 9_000, match: {} }],
  ['a match that is a list', '{"pos":"5-6-7","until":9,"match":["x"]}', { untilMs: 9_000, match: {} }],
  ['a match that is null', '{"pos":"5-6-7","until":9,"match":null}', { untilMs: 9_000, match: {} }],
  ['no end', '{"pos":"5-6-7","match":{"task":"t"}}', { untilMs: null, match: { task: 't' } }],
  ['an end as text', '{"pos":"5-6-7","until":"9","match":{"task":"t"}}', { untilMs: null, match: { task: 't' } }],
])('an entry with %s is read as wide as can be', (_, data, entry) => {
  expect(readFeedFrame('revoke', data)).toEqual({ kind: 'entry', entry: { pos: '5-6-7', ...entry } });
});

it.each([
  ['head', '{}'],
  ['head', '{"pos":5}'],
  ['revoke', '{"pos":"soon","match":{}}'],
  ['revoke', 'x'],
  ['revoke', 'null'],
])('a %s of %j has no place, and is not taken', (event, data) => {
  expect(() => readFeedFrame(event, data)).toThrow();
});

it('an event nobody knows is left to the next head', () => {
  expect(readFeedFrame('ping', 'x')).toBeUndefined();
});
