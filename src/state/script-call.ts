import { Command } from 'ioredis';

/**
 * EVALSHA, already as it goes over the wire. A script has some fifty words: as arguments of a command each would be looked at three times, and
 * all of them would stand in the error of a refused one.
 */
export class ScriptCall extends Command {
  readonly #text: string;

  /** The first `keyCount` of the words are keys, of one slot. */
  constructor(sha: string, keyCount: number, words: readonly (string | number)[]) {
    super('evalsha', [sha, keyCount, words[0] ?? ''], { replyEncoding: 'utf8' });
    let text = `*${words.length + 3}\r\n$7\r\nevalsha\r\n${bulk(sha)}${bulk(keyCount)}`;
    for (const word of words) text += bulk(word);
    this.#text = text;
  }

  override toWritable(): string {
    return this.#text;
  }
}

function bulk(word: string | number): string {
  const text = typeof word === 'number' ? String(word) : word;
  return `$${Buffer.byteLength(text)}\r\n${text}\r\n`;
}
