import { Command } from 'ioredis';
import { ScriptCall } from '../../../src/state/script-call.js';

const SHA = 'a'.repeat(40);

it.each<[string, number, (string | number)[]]>([
  ['keys and words', 2, ['{a}:k', '{a}:l', 'x', 1795894769, '']],
  ['text beyond ASCII', 1, ['{a}:k', 'für → 東京 🦋', '{"a":"\u00e9"}']],
  ['line ends and NULs', 1, ['{a}:k', '\r\n$5\r\nhello\r\n', '\0']],
  ['no words', 1, ['{a}:k']],
])('on the wire a call with %s is what the client would have made of it', (_, keyCount, words) => {
  const plain = new Command('evalsha', [SHA, keyCount, ...words], { replyEncoding: 'utf8' });
  expect(Buffer.from(new ScriptCall(SHA, keyCount, words).toWritable())).toEqual(
    Buffer.from(plain.toWritable({}) as string),
  );
});

it('it is routed by its first key', () => {
  const call = new ScriptCall(SHA, 3, ['{tag}:a', '{tag}:b', '{tag}:c', 'word']);
  expect(call.getSlot()).toBe(new Command('get', ['{tag}:zzz']).getSlot());
});

it('an error of it shows no word of it', () => {
  expect(new ScriptCall(SHA, 1, ['{a}:k', 'a word']).args).not.toContain('a word');
});
