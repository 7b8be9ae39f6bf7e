import { didYouMean, suggestion } from '../../../src/core/did-you-mean.js';

describe('a suggestion', () => {
  it.each([
    ['tolls', 'tools'],
    ['toosl', 'tools'],
    ['Tools', 'tools'],
    ['tool', 'tools'],
    ['tooools', 'tools'],
  ])('%s: did you mean %s?', (word, meant) => {
    expect(didYouMean(word, ['owner', 'team', 'tools'])).toBe(meant);
  });

  it.each(['', 'x', 'environment', 'zzzzz', 'teapot'])('%j is like none of them', (word) => {
    expect(didYouMean(word, ['owner', 'tools'])).toBeUndefined();
  });

  it('the nearest one wins', () => {
    expect(didYouMean('orders.raed', ['orders.rent', 'orders.read', 'orders.real'])).toBe('orders.read');
  });

  it('a word is never suggested for itself, nor compared when it is huge', () => {
    expect(didYouMean('tools', ['tools'])).toBeUndefined();
    expect(didYouMean('a'.repeat(300), ['a'.repeat(299)])).toBeUndefined();
  });

  it('ends a sentence, or adds nothing', () => {
    expect(suggestion('tolls', ['tools'])).toBe('; did you mean "tools"?');
    expect(suggestion('zzz', ['tools'])).toBe('');
  });
});
