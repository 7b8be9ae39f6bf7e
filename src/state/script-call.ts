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
    const all = ['evalsha', sha, keyCount, ...words];
    const text = written(all, (word) => word.length);
    // Nearly always all of it is ASCII: then that was right, and fifty words need not be measured one by one.
    this.#text = Buffer.byteLength(text) === text.length ? text : written(all, Buffer.byteLength);
  }

  override toWritable(): string {
    return this.#text;
  }
}

function written(words: readonly (string | number)[], bytesOf: (word: string) => number): string {
  const lines = [`*${words.length}`];
  for (const each of words) {
    const word = typeof each === 'number' ? String(each) : each;
    lines.push(`$${bytesOf(word)}`, word);
  }
  lines.push('');
  return lines.join('\r\n');
}
