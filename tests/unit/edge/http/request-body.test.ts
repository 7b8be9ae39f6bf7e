import { describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { BrokerError } from '../../../../src/core/errors.js';
import { parseFormBody, parseJsonBody, parseParameters } from '../../../../src/edge/http/request-body.js';
import { form, json } from '../../../../src/edge/http/route.js';

const code = (act: () => unknown): string => {
  try {
    act();
  } catch (error) {
    if (error instanceof BrokerError) return error.code;
    throw error;
  }
  return 'taken';
};

describe('parameters', () => {
  it('are decoded once, pluses as spaces, empty ones left out', () => {
    expect({ ...parseParameters('a=1+2%2B3&b=%25%34&c=&d') }).toEqual({ a: '1 2+3', b: '%4' });
  });

  it.each(['a=1&&b=2', '&&a=1&&&b=2&', 'a=1&b=2&&'])('%s: nothing between two marks is no parameter', (text) => {
    expect({ ...parseParameters(text) }).toEqual(Object.fromEntries(new URLSearchParams(text)));
  });

  it('reach no prototype', () => {
    const parsed = parseParameters('__proto__=x&constructor=y');
    expect(Object.getPrototypeOf(parsed)).toBeNull();
    expect(Object.keys(parsed)).toEqual(['__proto__', 'constructor']);
  });

  it('come once, however they are spelt', () => {
    expect(code(() => parseParameters('a=1&%61=2'))).toBe('invalid_request');
    expect(code(() => parseParameters('a=&a=2'))).toBe('invalid_request');
    expect({ ...parseParameters('a=1&%61=2', new Set(['a'])) }).toEqual({ a: ['1', '2'] });
  });

  it.each(['a=%', 'a=%f', 'a=%ff', 'a=%ED%A0%80', 'a=%00', '%zz=1'])('%s is refused', (text) => {
    expect(code(() => parseParameters(text))).toBe('invalid_request');
  });

  it('are at most 64', () => {
    const many = (count: number) => Array.from({ length: count }, (_, at) => `p${at}=1`).join('&');
    expect(code(() => parseParameters(many(64)))).toBe('taken');
    expect(code(() => parseParameters(many(65)))).toBe('too_large');
  });
});

describe('media types', () => {
  const body = json(z.unknown());
  const parse = (type: string | undefined) => () => parseJsonBody(Buffer.from('{}'), type, body);

  it.each([
    'application/json',
    'APPLICATION/JSON',
    'application/json;charset=utf-8',
    'application/json; charset="UTF-8"',
  ])('%s is JSON', (type) => {
    expect(code(parse(type))).toBe('taken');
  });

  it.each([
    undefined,
    '',
    'json',
    'text/json',
    'application/json; charset=latin1',
    'application/json; charset=utf-8; charset=utf-16',
    'application/json, application/json',
    'application/json; boundary=x',
    'application/problem+json',
  ])('%s is not', (type) => {
    expect(code(parse(type))).toBe('unsupported_media_type');
  });

  it('no body needs no type where none is needed', () => {
    const optional = json(z.unknown(), { optional: true });
    expect(parseJsonBody(Buffer.alloc(0), undefined, optional)).toEqual({});
    expect(code(() => parseJsonBody(Buffer.from('{}'), undefined, optional))).toBe('unsupported_media_type');
    expect(code(() => parseJsonBody(Buffer.alloc(0), 'application/json', body))).toBe('invalid_request');
  });

  it('a form is a form', () => {
    const shape = form(z.strictObject({ a: z.string(), list: z.array(z.string()).optional() }));
    const parseForm = (text: string, type = 'application/x-www-form-urlencoded') =>
      parseFormBody(Buffer.from(text), type, shape);
    expect({ ...parseForm('a=1&list=x&list=y') }).toEqual({ a: '1', list: ['x', 'y'] });
    expect(code(() => parseForm('a=1', 'multipart/form-data'))).toBe('unsupported_media_type');
    expect(code(() => parseForm('a=1&a=1'))).toBe('invalid_request');
  });

  it('a parameter that nobody knows is ignored, and one that is nearly ours is not', () => {
    const shape = form(z.object({ scope: z.string().optional() }));
    const parseForm = (text: string) => parseFormBody(Buffer.from(text), 'application/x-www-form-urlencoded', shape);
    expect({ ...parseForm('scope=a&nonce=1&__proto__=2&constructor=3') }).toEqual({ scope: 'a' });
    expect(code(() => parseForm('scopes=a'))).toBe('invalid_request');
    expect(code(() => parseForm('nonce=1&nonce=2'))).toBe('invalid_request');
  });
});
