import { existsSync, readFileSync } from 'node:fs';
import {
  readDerCertificates,
  readJwks,
  readSpiffeBundle,
  readSpiffeBundleMap,
} from '../../../src/plugins/identity/bundle-document.js';
import { followBundles } from '../../../src/plugins/identity/bundles.js';
import type { IdentityEvent } from '../../../src/plugins/identity/contract.js';
import type { BundleSource, SourceListener } from '../../../src/plugins/identity/sources/source.js';
import { bundleDocument, certificateAuthority, jwtAuthority, NOW_MS } from '../../fakes/issuing.js';
import { VirtualClock } from '../../fakes/virtual-clock.js';
import { missingVectors, vectorsPath } from './vectors.js';

const authority = jwtAuthority();
const other = jwtAuthority({ kid: 'key-2', number: 1 });
const entry = { ...authority.jwk, use: 'jwt-svid' };
const document = (...keys: unknown[]) => JSON.stringify({ keys });

describe('SPF-B-1: keys has to be there, and may be empty', () => {
  it.each([
    '{}',
    '{"spiffe_sequence":1}',
    '{"keys":null}',
    '{"keys":{}}',
    '{"keys":"x"}',
    '[]',
    'null',
    '',
    '<html>',
    '{"keys":[1]}',
    '{"keys":[null]}',
    '{"keys":[[]]}',
  ])('%p is no bundle', (text) => {
    expect(() => readSpiffeBundle(text)).toThrow(expect.objectContaining({ name: 'BundleRefused' }));
  });

  it('an empty list is a bundle without keys', () => {
    expect(readSpiffeBundle('{"keys":[]}')).toMatchObject({ jwtKeys: new Map(), x509Authorities: [], ignored: [] });
  });
});

describe('SPF-B-2: unknown elements are left out, the rest is kept', () => {
  it.each([
    ['an unknown kty', { ...entry, kty: 'AKP', kid: 'x' }],
    ['an unknown use', { ...entry, use: 'future-svid', kid: 'x' }],
    ['a missing use', { ...authority.jwk, kid: 'x' }],
    ['a wit-svid key', { ...entry, use: 'wit-svid', kid: 'x' }],
    ['a missing kid', { ...other.jwk, use: 'jwt-svid', kid: undefined }],
    ['an empty kid', { ...entry, kid: '' }],
    ['a kid with a space', { ...entry, kid: 'a b' }],
    ['a key that is too weak', { use: 'jwt-svid', kty: 'RSA', kid: 'x', e: 'AQ', n: 'AQAB' }],
    ['a point off its curve', { ...entry, kid: 'x', y: entry['x' as never] }],
    ['an X.509 entry without x5c', { ...entry, use: 'x509-svid' }],
    ['an X.509 entry with an empty x5c', { ...entry, use: 'x509-svid', x5c: [] }],
    ['an X.509 entry with a broken x5c', { ...entry, use: 'x509-svid', x5c: ['AAAA'] }],
  ])('%s', (_name, stranger) => {
    const content = readSpiffeBundle(document(stranger, entry));
    expect([...content.jwtKeys.keys()]).toEqual(['key-1']);
    expect(content.x509Authorities).toEqual([]);
    expect(content.ignored).toHaveLength(1);
  });

  it('an X.509 entry that is no CA is left out', async () => {
    const ca = await certificateAuthority('prod.example');
    const leaf = await ca.issue({ uris: ['spiffe://prod.example/a'] });
    const content = readSpiffeBundle(bundleDocument({ x509: [leaf, ca] }));
    expect(content.x509Authorities.map((one) => one.fingerprint256)).toEqual([ca.certificate.fingerprint256]);
  });
});

describe('SPF-B-4: the sequence is a whole number a double can hold', () => {
  it.each(['9007199254740993', '18446744073709551615', '-1', '1.5', '"1"', 'null', '[1]', '1e999'])(
    '%s refuses the document',
    (text) => {
      expect(() => readSpiffeBundle(`{"keys":[],"spiffe_sequence":${text}}`)).toThrow();
    },
  );

  it('it need not be there; sequence and hint are read', () => {
    expect(readSpiffeBundle('{"keys":[],"spiffe_sequence":7,"spiffe_refresh_hint":60}')).toMatchObject({
      sequence: 7,
      refreshHintMs: 60_000,
    });
    expect(readSpiffeBundle('{"keys":[]}')).not.toHaveProperty('sequence');
  });
});

describe('SPF-B-5: a bundle map, without duplicate names', () => {
  const one = document(entry);
  const two = document({ ...other.jwk, use: 'jwt-svid' });

  it('gives the bundle of one trust domain', () => {
    const map = `{"trust_domains":{"a.example":${one},"b.example":${two}}}`;
    expect([...readSpiffeBundleMap(map, 'a.example').jwtKeys.keys()]).toEqual(['key-1']);
    expect([...readSpiffeBundleMap(map, 'b.example').jwtKeys.keys()]).toEqual(['key-2']);
  });

  it.each([
    ['a trust domain twice', `{"trust_domains":{"a.example":${one},"a.example":${two}}}`],
    ['a trust domain twice, once escaped', `{"trust_domains":{"a.example":${one},"\\u0061.example":${two}}}`],
    ['trust_domains twice', `{"trust_domains":{"a.example":${one}},"trust_domains":{}}`],
    ['another trust domain', `{"trust_domains":{"b.example":${one}}}`],
    ['a prototype member', '{"trust_domains":{}}'],
    ['no map', one],
  ])('%s refuses it', (_name, text) => {
    expect(() => readSpiffeBundleMap(text, 'a.example')).toThrow(expect.objectContaining({ name: 'BundleRefused' }));
    expect(() => readSpiffeBundleMap('{"trust_domains":{}}', 'constructor')).toThrow();
  });

  it('a member named twice inside a bundle refuses it', () => {
    expect(() => readSpiffeBundle(`{"keys":[],"keys":[${JSON.stringify(entry)}]}`)).toThrow();
  });
});

describe('what refuses the whole document', () => {
  it.each([
    ['two keys of one kid', document(entry, { ...other.jwk, kid: 'key-1', use: 'jwt-svid' })],
    ['a private key', document({ ...authority.privateKey.export({ format: 'jwk' }), kid: 'key-1', use: 'jwt-svid' })],
    ['a symmetric key', document({ kty: 'oct', k: 'AAAA', kid: 'x', use: 'jwt-svid' })],
    ['more than 1000 keys', document(...Array.from({ length: 1001 }, () => ({ use: 'x' })))],
  ])('%s', (_name, text) => {
    expect(() => readSpiffeBundle(text)).toThrow(expect.objectContaining({ name: 'BundleRefused' }));
  });
});

describe('a JWK Set from where the channel says what the keys are for', () => {
  it('takes keys without use, or with one of the uses', () => {
    const jwks = document({ ...authority.jwk }, { ...other.jwk, use: 'sig' });
    expect([...readJwks(jwks, ['sig']).jwtKeys.keys()]).toEqual(['key-1', 'key-2']);
    expect([...readJwks(jwks, ['jwt-svid']).jwtKeys.keys()]).toEqual(['key-1']);
    expect([...readJwks(document({ ...authority.jwk, use: 'enc' }), ['sig']).jwtKeys.keys()]).toEqual([]);
  });
});

describe('certificates one after another, as the Workload API sends them', () => {
  it('reads all of them, and refuses what is cut', async () => {
    const first = await certificateAuthority('prod.example');
    const second = await certificateAuthority('prod.example');
    const bytes = Buffer.concat([first.certificate.raw, second.certificate.raw]);
    expect(readDerCertificates(bytes).x509Authorities.map((one) => one.fingerprint256)).toEqual([
      first.certificate.fingerprint256,
      second.certificate.fingerprint256,
    ]);
    expect(readDerCertificates(Buffer.alloc(0)).x509Authorities).toEqual([]);
    expect(() => readDerCertificates(Buffer.from('not DER'))).toThrow();
    expect(() => readDerCertificates(bytes.subarray(0, -1))).toThrow();
    expect(() => readDerCertificates(Buffer.concat([bytes, Buffer.from([0])]))).toThrow();
  });
});

/** A source that delivers what a test says. */
function handSource(): BundleSource & { listener: SourceListener } {
  const source = {
    description: 'by hand',
    listener: undefined as unknown as SourceListener,
    async start(listener: SourceListener) {
      source.listener = listener;
    },
    async refresh() {},
    async close() {},
  };
  return source;
}

async function following() {
  const clock = new VirtualClock(NOW_MS);
  const sources = { a: handSource(), b: handSource() };
  const events: IdentityEvent[] = [];
  const bundles = await followBundles(
    [
      { name: 'a.example', source: sources.a },
      { name: 'b.example', source: sources.b },
    ],
    { clock, observe: (event) => events.push(event), setTimer: () => () => {} },
  );
  const moves: string[] = [];
  bundles.onKeysGone((ids) => moves.push(...ids.map((id) => `- ${id}`)));
  bundles.onKeysBack((ids) => moves.push(...ids.map((id) => `+ ${id}`)));
  const deliver = (text: string, to: 'a' | 'b' = 'a') => sources[to].listener.deliver(readSpiffeBundle(text));
  return { bundles, clock, deliver, sources, events, moves };
}

describe('following a bundle', () => {
  const one = bundleDocument({ jwt: [authority] }, { spiffe_sequence: 5 });
  const both = bundleDocument({ jwt: [authority, other] }, { spiffe_sequence: 6 });

  it('a trust domain that was never fetched has no bundle', async () => {
    const { bundles } = await following();
    expect(bundles.get('a.example')).toBeUndefined();
    expect(bundles.status()[0]).toMatchObject({ name: 'a.example', ok: false, keys: 0 });
  });

  it('a lower sequence changes nothing and is reported', async () => {
    const { bundles, deliver, moves, events } = await following();
    deliver(both);
    const before = bundles.get('a.example');
    deliver(one);
    expect(bundles.get('a.example')).toBe(before);
    expect(before?.jwtKeys.size).toBe(2);
    expect(moves).toEqual([]);
    expect(bundles.status()[0]).toMatchObject({ ok: false, problem: 'the sequence went back from 6 to 5' });
    expect(events.at(-1)).toMatchObject({ type: 'bundle_failed', name: 'a.example' });
  });

  it('a failed fetch changes nothing and is reported until the next good one', async () => {
    const { bundles, deliver, sources } = await following();
    deliver(one);
    const before = bundles.get('a.example');
    sources.a.listener.fail('connection refused');
    expect(bundles.get('a.example')).toBe(before);
    expect(bundles.status()[0]).toMatchObject({ ok: false, problem: 'connection refused', keys: 1 });
    deliver(one);
    expect(bundles.status()[0]).toMatchObject({ ok: true, keys: 1 });
    expect(bundles.status()[0]).not.toHaveProperty('problem');
  });

  it('a source that stays down is news once', async () => {
    const { sources, events, deliver } = await following();
    for (const problem of ['down', 'down', 'down', 'status 500', 'down']) sources.a.listener.fail(problem);
    deliver(one);
    sources.a.listener.fail('down');
    expect(events.map((event) => ('problem' in event ? event.problem : event.type))).toEqual([
      'down',
      'status 500',
      'down',
      'bundle_changed',
      'down',
    ]);
  });

  it('the same keys are the same bundle, only fetched later', async () => {
    const { bundles, deliver, clock, moves } = await following();
    deliver(one);
    const before = bundles.get('a.example');
    clock.advance(60_000);
    deliver(bundleDocument({ jwt: [authority] }, { spiffe_sequence: 6 }));
    expect(bundles.get('a.example')).toBe(before);
    expect(before).toMatchObject({ fetchedAtMs: NOW_MS + 60_000, sequence: 6 });
    expect(moves).toEqual([]);
  });

  it('keys that left and keys that came are told, after the new bundle is in force', async () => {
    const { bundles, deliver, moves } = await following();
    bundles.onKeysGone(() => moves.push(`now ${bundles.get('a.example')?.jwtKeys.size}`));
    deliver(both);
    expect(moves).toEqual([]);
    deliver(bundleDocument({ jwt: [other] }, { spiffe_sequence: 7 }));
    expect(moves).toEqual(['- a.example#key-1', 'now 1']);
    deliver(bundleDocument({ jwt: [authority, other] }, { spiffe_sequence: 8 }));
    expect(moves.at(-1)).toBe('+ a.example#key-1');
  });

  it('another key under an old kid is gone, then back', async () => {
    const { deliver, moves } = await following();
    deliver(one);
    deliver(bundleDocument({ jwt: [jwtAuthority({ kid: 'key-1', number: 1 })] }));
    expect(moves).toEqual(['- a.example#key-1', '+ a.example#key-1']);
  });

  it('SPF-B-3: an empty bundle is the kill switch: every key is gone', async () => {
    const { bundles, deliver, moves } = await following();
    const ca = await certificateAuthority('a.example');
    deliver(bundleDocument({ jwt: [authority], x509: [ca] }));
    expect(bundles.keyIds()).toHaveLength(2);
    deliver('{"keys":[]}');
    expect(moves).toHaveLength(2);
    expect(bundles.keyIds()).toEqual([]);
    expect(bundles.get('a.example')).toBeDefined();
  });

  it('a CA is known by its key: a new certificate for it is another bundle, but no key is gone', async () => {
    const { bundles, deliver, moves } = await following();
    const key = jwtAuthority({ number: 2 });
    const pair = {
      privateKey: key.privateKey,
      publicKey: (await import('node:crypto')).createPublicKey(key.privateKey),
    };
    deliver(bundleDocument({ x509: [await certificateAuthority('a.example', { key: pair })] }));
    const before = bundles.get('a.example');
    deliver(
      bundleDocument({ x509: [await certificateAuthority('a.example', { key: pair, notAfterMs: NOW_MS + 1e9 })] }),
    );
    expect(bundles.get('a.example')).not.toBe(before);
    expect(moves).toEqual([]);
  });

  it('SPF-B-6: trust domains are never merged, also not with equal kids', async () => {
    const { bundles, deliver, moves } = await following();
    deliver(one, 'a');
    deliver(bundleDocument({ jwt: [other] }), 'b');
    expect([...(bundles.get('a.example')?.jwtKeys.keys() ?? [])]).toEqual(['key-1']);
    expect([...(bundles.get('b.example')?.jwtKeys.keys() ?? [])]).toEqual(['key-2']);
    deliver('{"keys":[]}', 'b');
    expect(bundles.get('a.example')?.jwtKeys.size).toBe(1);
    expect(moves).toEqual(['- b.example#key-2']);
  });
});

const goSpiffe = vectorsPath('go-spiffe/bundle');
(existsSync(goSpiffe) ? describe : describe.skip)('the bundles of go-spiffe', () => {
  const read = (name: string) => readFileSync(`${goSpiffe}/${name}`, 'utf8');

  it.each([
    ['spiffebundle_valid_1.json', 1, 1],
    ['spiffebundle_valid_2.json', undefined, 1],
    ['spiffebundle_valid_with_wit.json', 2, 1],
    // go-spiffe refuses an x5c of several; SPF-X-8 says that a consumer uses the first.
    ['spiffebundle_multiple_x509.json', 1, 1],
    // go-spiffe refuses the document; SPF-B-2 lets us keep the rest.
    ['spiffebundle_missing_kid.json', 0, 1],
  ])('%s', (name, jwtKeys, authorities) => {
    const content = readSpiffeBundle(read(`spiffebundle/testdata/${name}`));
    if (jwtKeys !== undefined) expect(content.jwtKeys.size).toBe(jwtKeys);
    else expect(content.jwtKeys.size).toBeGreaterThan(5);
    expect(content.x509Authorities).toHaveLength(authorities);
  });

  it('spiffebundle_no_keys.json is no bundle', () => {
    expect(() => readSpiffeBundle(read('spiffebundle/testdata/spiffebundle_no_keys.json'))).toThrow();
  });

  it.each([
    ['jwks_valid_1.json', 1],
    ['jwks_valid_2.json', 2],
    ['jwks_missing_kid.json', 1],
  ])('%s', (name, keys) => {
    expect(readJwks(read(`jwtbundle/testdata/${name}`), ['jwt-svid']).jwtKeys.size).toBe(keys);
  });
});

if (!existsSync(goSpiffe)) missingVectors('go-spiffe bundles');
