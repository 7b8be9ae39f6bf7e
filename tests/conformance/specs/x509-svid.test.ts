import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { readSpiffeBundle } from '../../../src/plugins/identity/bundle-document.js';
import type { TrustBundle } from '../../../src/plugins/identity/contract.js';
import { verifyX509Svid } from '../../../src/plugins/identity/x509-svid.js';
import {
  BOTH_EKU,
  bundleDocument,
  type CertificateRequest,
  caRequest,
  certificateAuthority,
  extension,
  type IssuedCertificate,
  keyPair,
  NOW_MS,
  USAGE,
} from '../../fakes/issuing.js';
import { missingVectors, vectorsPath } from './vectors.js';

const DOMAIN = 'prod.example';
const ID = `spiffe://${DOMAIN}/agent/refunds`;
const [SERVER_AUTH = '', CLIENT_AUTH = ''] = BOTH_EKU;

const bundleOf = (trustDomain: string, ...authorities: IssuedCertificate[]): TrustBundle => ({
  trustDomain,
  ...readSpiffeBundle(bundleDocument({ x509: authorities })),
  fetchedAtMs: NOW_MS,
});

let root: IssuedCertificate;
let stranger: IssuedCertificate;
let bundle: TrustBundle;

beforeAll(async () => {
  root = await certificateAuthority(DOMAIN);
  stranger = await certificateAuthority('other.example');
  bundle = bundleOf(DOMAIN, root);
});

interface Options {
  bundle?: TrustBundle;
  chain?: IssuedCertificate[];
  nowMs?: number;
  lenientEku?: boolean;
}

/** The reason of a refusal; undefined when it was accepted. */
function reasonOf(leaf: IssuedCertificate, options: Options = {}): string | undefined {
  try {
    verifyX509Svid(
      { leaf: leaf.certificate, chain: (options.chain ?? []).map((one) => one.certificate) },
      { bundle: options.bundle ?? bundle, nowMs: options.nowMs ?? NOW_MS, lenientEku: options.lenientEku ?? false },
    );
    return undefined;
  } catch (error) {
    const { code, detail } = error as { code: string; detail: { reason: string } };
    expect(code).toBe('identity_rejected');
    return detail.reason;
  }
}

let leaves = 0;
const issue = (request: CertificateRequest, from = root) => {
  leaves += 1;
  return from.issue({ uris: [ID], ...request });
};
const refusalOf = async (request: CertificateRequest, options?: Options) => reasonOf(await issue(request), options);
const bit = (name: keyof typeof USAGE) => USAGE[name] as number;
const length = (content: Buffer) => Buffer.from([content.length]);
const der = (tag: number, ...content: Buffer[]): Buffer => {
  const whole = Buffer.concat(content);
  return Buffer.concat([Buffer.from([tag]), length(whole), whole]);
};

afterAll(() => {
  expect(leaves).toBeGreaterThan(200);
});

it('proves a leaf that its trust domain’s authority signed', async () => {
  const leaf = await issue({ dnsNames: ['refunds.internal'] });
  const { identity, notBeforeMs } = verifyX509Svid(
    { leaf: leaf.certificate, chain: [] },
    { bundle, nowMs: NOW_MS, lenientEku: false },
  );
  expect(identity).toEqual({
    kind: 'workload',
    proof: 'x509-svid',
    spiffeId: ID,
    trustDomain: DOMAIN,
    expiresAtMs: NOW_MS + 3_600_000,
    keyId: expect.stringMatching(/^prod\.example#[A-Za-z0-9_-]{43}$/),
    certificateThumbprint: Buffer.from(leaf.certificate.fingerprint256.replaceAll(':', ''), 'hex').toString(
      'base64url',
    ),
    attributes: {},
  });
  expect(notBeforeMs).toBe(NOW_MS - 60_000);
});

describe('SPF-X-1: exactly one URI name', () => {
  it.each<[string, CertificateRequest]>([
    ['none', { uris: [] }],
    ['none, but DNS names', { uris: [], dnsNames: [DOMAIN] }],
    ['none, but the ID as common name', { uris: [], subject: `CN=${ID}` }],
    ['none, but the ID as DNS name', { uris: [], dnsNames: [ID] }],
    ['none, but the ID as e-mail', { uris: [], emails: [ID] }],
    ['two', { uris: [ID, `spiffe://${DOMAIN}/agent/other`] }],
    ['the same twice', { uris: [ID, ID] }],
    ['two, one of them no SPIFFE ID', { uris: [ID, 'https://example.org/'] }],
    ['two, the other domain first', { uris: ['spiffe://other.example/a', ID] }],
    ['three', { uris: [ID, ID, ID] }],
  ])('%s is refused', async (_name, request) => {
    expect(await refusalOf(request)).toMatch(/^SPF-X-1/);
  });

  it('two alternative-name extensions are refused', async () => {
    const second = extension('2.5.29.17', false, der(0x30, der(0x86, Buffer.from('spiffe://prod.example/b'))));
    expect(await refusalOf({ extra: [second] })).toMatch(/extension 2\.5\.29\.17 twice/);
  });

  it('other names beside it are fine', async () => {
    expect(await refusalOf({ dnsNames: ['a.example', 'b.example'], emails: ['a@example.org'] })).toBeUndefined();
  });

  it('a comma in a DNS name adds no URI', async () => {
    expect(await refusalOf({ uris: [], dnsNames: [`a, URI:${ID}`] })).toMatch(/^SPF-X-1/);
  });
});

describe('SPF-ID: the URI is a SPIFFE ID in its one spelling', () => {
  const bad = [
    'http://prod.example/agent',
    'https://prod.example/agent',
    'urn:spiffe:prod.example',
    'SPIFFE://prod.example/agent',
    'Spiffe://prod.example/agent',
    'spiffe:/prod.example/agent',
    'spiffe:prod.example/agent',
    'spiffe:///agent',
    'spiffe://PROD.example/agent',
    'spiffe://Prod.Example/agent',
    'spiffe://prod%2eexample/agent',
    'spiffe://prod.example:443/agent',
    'spiffe://user@prod.example/agent',
    'spiffe://user:x@prod.example/agent',
    'spiffe://prod.example/agent/',
    'spiffe://prod.example//agent',
    'spiffe://prod.example/agent//a',
    'spiffe://prod.example/.',
    'spiffe://prod.example/..',
    'spiffe://prod.example/agent/../admin',
    'spiffe://prod.example/agent/./a',
    'spiffe://prod.example/%61gent',
    'spiffe://prod.example/agent%2fadmin',
    'spiffe://prod.example/agent?x=1',
    'spiffe://prod.example/agent#x',
    'spiffe://prod.example/agent a',
    'spiffe://prod.example/agent,URI:x',
    ' spiffe://prod.example/agent',
    'spiffe://prod.example/agent ',
    `spiffe://prod.example/${'a'.repeat(2048)}`,
    `spiffe://${'a'.repeat(256)}/agent`,
    ...Array.from('!"#$%&\'()*+,:;<=>?@[\\]^`{|}~', (character) => `spiffe://prod.example/a${character}b`),
    ...Array.from('!"$&\'()*+,;<=>[\\]^`{|}~AZ', (character) => `spiffe://prod${character}example/a`),
  ];

  it.each(bad)('%p is refused', async (uri) => {
    expect(await refusalOf({ uris: [uri] })).toMatch(/^SPF-ID/);
  });

  it.each(['\n', '\t', '\u0000', '\u007f', '\r'])('a control character %j is refused', async (character) => {
    const name = der(0x86, Buffer.from(`spiffe://prod.example/a${character}b`));
    expect(await refusalOf({ uris: [], extra: [extension('2.5.29.17', false, der(0x30, name))] })).toMatch(/malformed/);
  });

  const good = ['/a', '/A/b', '/agent/refunds-1_x.y', '/...', '/..a', '/-', '/0', `/${'a'.repeat(1900)}`];

  it.each(good)('path %p is taken', async (path) => {
    expect(await refusalOf({ uris: [`spiffe://${DOMAIN}${path}`] })).toBeUndefined();
  });
});

describe('SPF-X-2: a leaf is no CA, and may sign data but not certificates', () => {
  it('CA:TRUE is refused, whatever the usage', async () => {
    expect(await refusalOf({ isCa: true })).toMatch(/^SPF-X-2/);
    expect(await refusalOf({ isCa: true, pathLength: 0 })).toMatch(/^SPF-X-2/);
    expect(await refusalOf({ isCa: true, keyUsage: bit('digitalSignature') | bit('keyCertSign') })).toMatch(/^SPF-X-2/);
  });

  it('basic constraints may be absent', async () => {
    expect(await refusalOf({ noBasicConstraints: true })).toBeUndefined();
  });

  it('a missing key usage is refused', async () => {
    expect(await refusalOf({ keyUsage: null })).toBe('SPF-X-2: the leaf has no key usage');
  });

  it('a key usage that is not critical is refused', async () => {
    expect(await refusalOf({ keyUsageCritical: false })).toBe('SPF-X-2: the key usage is not critical');
  });

  const names = [
    'digitalSignature',
    'nonRepudiation',
    'keyEncipherment',
    'dataEncipherment',
    'keyAgreement',
    'keyCertSign',
    'cRLSign',
  ] as const;
  const combinations = names.flatMap((one, at) => [[one], ...names.slice(at + 1).map((other) => [one, other])]);

  it.each(combinations)('key usage %s %s', async (...usages: (string | undefined)[]) => {
    const set = usages.filter((one): one is (typeof names)[number] => names.includes(one as never));
    const reason = await refusalOf({ keyUsage: set.reduce((sum, one) => sum | bit(one), 0) });
    const fine = set.includes('digitalSignature') && !set.includes('keyCertSign') && !set.includes('cRLSign');
    if (fine) expect(reason).toBeUndefined();
    else expect(reason).toMatch(/^SPF-X-2/);
  });

  it('two key usage extensions are refused', async () => {
    const second = extension('2.5.29.15', true, der(0x03, Buffer.from([0x07, 0x80])));
    expect(await refusalOf({ extra: [second] })).toMatch(/extension 2\.5\.29\.15 twice/);
  });
});

describe('SPF-X-3: the ID of a leaf has a path', () => {
  it.each([`spiffe://${DOMAIN}`, `spiffe://other.example`])('%s is refused', async (uri) => {
    expect(await refusalOf({ uris: [uri] })).toMatch(/^SPF-X-3/);
  });

  it('the root path is no path', async () => {
    expect(await refusalOf({ uris: [`spiffe://${DOMAIN}/`] })).toBeDefined();
  });
});

describe('SPF-X-4: extended key usage, when there, has serverAuth and clientAuth', () => {
  const EMAIL = '1.3.6.1.5.5.7.3.4';
  const ANY = '2.5.29.37.0';

  it.each<[string, string[] | null, boolean, boolean]>([
    ['none', null, true, true],
    ['both', BOTH_EKU, true, true],
    ['both, the other way round', [CLIENT_AUTH, SERVER_AUTH], true, true],
    ['both and more', [...BOTH_EKU, EMAIL], true, true],
    ['clientAuth alone', [CLIENT_AUTH], false, true],
    ['serverAuth alone', [SERVER_AUTH], false, true],
    ['something else', [EMAIL], false, false],
    ['anyExtendedKeyUsage', [ANY], false, false],
  ])('%s', async (_name, extendedKeyUsage, strict, lenient) => {
    const leaf = await issue({ extendedKeyUsage });
    expect(reasonOf(leaf) === undefined).toBe(strict);
    expect(reasonOf(leaf, { lenientEku: true }) === undefined).toBe(lenient);
    if (!strict) expect(reasonOf(leaf)).toMatch(/^SPF-X-4/);
  });
});

describe('SPF-X-5: with an empty subject the alternative name is critical', () => {
  it.each([
    ['', false, false],
    ['', true, true],
    ['CN=workload', false, true],
    ['CN=workload', true, true],
  ])('subject %p, critical %p', async (subject, sanCritical, fine) => {
    const reason = await refusalOf({ subject, sanCritical });
    if (fine) expect(reason).toBeUndefined();
    else expect(reason).toMatch(/^SPF-X-5/);
  });
});

describe('SPF-X-6: a path to an authority of this trust domain and no other', () => {
  const intermediate = (from: IssuedCertificate, number: number, request: CertificateRequest = {}) =>
    from.issue(caRequest(DOMAIN, { subject: `CN=intermediate ${number}`, ...request }));

  it('a leaf of this domain that another domain’s authority signed is refused', async () => {
    expect(reasonOf(await issue({}, stranger))).toMatch(/no path/);
  });

  it('also when the peer sends that authority along', async () => {
    expect(reasonOf(await issue({}, stranger), { chain: [stranger] })).toMatch(/of another trust domain/);
  });

  it('a leaf of another domain is not judged by this bundle', async () => {
    expect(await refusalOf({ uris: ['spiffe://other.example/agent'] })).toMatch(/^SPF-B-6/);
    expect(await refusalOf({ uris: ['spiffe://prod.example.other/agent'] })).toMatch(/^SPF-B-6/);
  });

  it('a self-signed leaf is refused', async () => {
    const self = await certificateAuthority(DOMAIN, { uris: [ID], isCa: false, keyUsage: USAGE.digitalSignature });
    expect(reasonOf(self)).toMatch(/no path/);
    expect(reasonOf(self, { chain: [self] })).toMatch(/no path/);
  });

  it('an authority of the same name with another key is refused', async () => {
    expect(reasonOf(await issue({}, await certificateAuthority(DOMAIN)))).toMatch(/no path/);
  });

  it('a bundle without authorities refuses everybody (SPF-B-3)', async () => {
    expect(await refusalOf({}, { bundle: bundleOf(DOMAIN) })).toMatch(/^SPF-B-3/);
  });

  it('any of several authorities will do, and the key id says which one it was', async () => {
    const second = await certificateAuthority(DOMAIN);
    const both = bundleOf(DOMAIN, root, second);
    const keyIdOf = async (from: IssuedCertificate) =>
      verifyX509Svid(
        { leaf: (await issue({}, from)).certificate, chain: [] },
        { bundle: both, nowMs: NOW_MS, lenientEku: false },
      ).identity.keyId;
    expect(await keyIdOf(root)).not.toBe(await keyIdOf(second));
    expect(await keyIdOf(root)).toBe(await keyIdOf(root));
  });

  it.each([1, 2, 3, 4, 5, 6, 7])('%i intermediates from the peer are taken, in any order', async (count) => {
    const chain: IssuedCertificate[] = [];
    for (let number = 0; number < count; number += 1) chain.push(await intermediate(chain.at(-1) ?? root, number));
    const leaf = await issue({}, chain.at(-1));
    expect(reasonOf(leaf, { chain })).toBeUndefined();
    expect(reasonOf(leaf, { chain: [...chain].reverse() })).toBeUndefined();
    expect(reasonOf(leaf, { chain: chain.slice(1) })).toMatch(/no path/);
  });

  it('more than eight certificates from the peer are refused unread', async () => {
    const one = await intermediate(root, 1);
    expect(reasonOf(await issue({}, one), { chain: Array.from({ length: 9 }, () => one) })).toMatch(/too many/);
  });

  it('certificates that sign each other in circles end in a refusal', async () => {
    const keys = [0, 1, 2, 3].map(() => generateKeyPairSync('ec', { namedCurve: 'P-256' }));
    const names = keys.map((key, at) => caRequest(DOMAIN, { key, subject: `CN=circle ${at % 2}` }));
    const selves = await Promise.all(names.map((request) => certificateAuthority(DOMAIN, request)));
    const chain: IssuedCertificate[] = [];
    for (const [at, self] of selves.entries()) {
      chain.push(
        await self.issue(names[(at + 1) % 4] as CertificateRequest),
        await self.issue(names[(at + 3) % 4] as CertificateRequest),
      );
    }
    expect(reasonOf(await issue({}, selves[0]), { chain })).toMatch(/^SPF-X-6/);
  });

  it('an intermediate that is itself in the bundle is an authority', async () => {
    const one = await intermediate(root, 1);
    expect(reasonOf(await issue({}, one), { bundle: bundleOf(DOMAIN, one) })).toBeUndefined();
  });

  it.each<[string, CertificateRequest, RegExp]>([
    ['no CA', { isCa: false }, /^SPF-X-7/],
    ['no CA, with keyCertSign', { isCa: false, keyUsage: USAGE.keyCertSign }, /^SPF-X-7/],
    ['no basic constraints', { noBasicConstraints: true }, /^SPF-X-7/],
    ['without keyCertSign', { keyUsage: USAGE.cRLSign }, /^SPF-X-7/],
    ['with digitalSignature only', { keyUsage: USAGE.digitalSignature }, /^SPF-X-7/],
    ['without key usage', { keyUsage: null }, /^SPF-X-7/],
    ['of another trust domain', { uris: ['spiffe://other.example'] }, /^SPF-X-7/],
    ['with a path in its ID', { uris: [`spiffe://${DOMAIN}/ca`] }, /^SPF-X-7/],
    ['with two IDs', { uris: [`spiffe://${DOMAIN}`, 'spiffe://other.example'] }, /^SPF-X-7/],
    ['expired', { notAfterMs: NOW_MS - 1000 }, /expired/],
    ['not valid yet', { notBeforeMs: NOW_MS + 1000 }, /not valid yet/],
    [
      'with an unknown critical extension',
      { extra: [extension('1.3.6.1.4.1.99999.1', true, Buffer.from([0x05, 0x00]))] },
      /unknown critical/,
    ],
    [
      'with critical policy constraints',
      { extra: [extension('2.5.29.36', true, der(0x30, der(0x80, Buffer.from([0]))))] },
      /unknown critical/,
    ],
  ])('an intermediate %s is refused', async (_name, request, reason) => {
    const one = await intermediate(root, 1, request);
    expect(reasonOf(await issue({}, one), { chain: [one] })).toMatch(reason);
  });

  it.each<[string, CertificateRequest]>([
    ['without a SPIFFE ID', { uris: [] }],
    ['with another kind of URI', { uris: ['https://ca.example/'] }],
    [
      'with an unknown extension that is not critical',
      { extra: [extension('1.3.6.1.4.1.99999.1', false, Buffer.from([0x05, 0x00]))] },
    ],
    [
      'with critical certificate policies',
      { extra: [extension('2.5.29.32', true, der(0x30, der(0x30, der(0x06, Buffer.from([0x2a, 3, 4])))))] },
    ],
  ])('an intermediate %s is taken', async (_name, request) => {
    const one = await intermediate(root, 1, request);
    expect(reasonOf(await issue({}, one), { chain: [one] })).toBeUndefined();
  });

  it('a leaf cannot be a CA for another leaf', async () => {
    const one = await issue({ uris: [`spiffe://${DOMAIN}/agent/middle`], subject: 'CN=middle' });
    expect(reasonOf(await issue({}, one), { chain: [one] })).toMatch(/^SPF-X-7/);
  });

  it('the path length of each CA counts the intermediates below it', async () => {
    const short = await certificateAuthority(DOMAIN, { pathLength: 0 });
    const long = await certificateAuthority(DOMAIN, { pathLength: 1 });
    for (const [from, depth, fine] of [
      [short, 0, true],
      [short, 1, false],
      [long, 1, true],
      [long, 2, false],
    ] as const) {
      const chain: IssuedCertificate[] = [];
      for (let number = 0; number < depth; number += 1) chain.push(await intermediate(chain.at(-1) ?? from, number));
      const reason = reasonOf(await issue({}, chain.at(-1) ?? from), { chain, bundle: bundleOf(DOMAIN, from) });
      if (fine) expect(reason).toBeUndefined();
      else expect(reason).toMatch(/too long/);
    }
  });

  it('dates count for the leaf, the intermediate and the authority, and the first end is the proof’s', async () => {
    const one = await intermediate(root, 1, { notAfterMs: NOW_MS + 60_000 });
    const leaf = await issue({ notAfterMs: NOW_MS + 3_600_000 }, one);
    const rules = { bundle, nowMs: NOW_MS, lenientEku: false };
    const peer = { leaf: leaf.certificate, chain: [one.certificate] };
    expect(verifyX509Svid(peer, rules).identity.expiresAtMs).toBe(NOW_MS + 60_000);
    expect(reasonOf(leaf, { chain: [one], nowMs: NOW_MS + 59_999 })).toBeUndefined();
    expect(reasonOf(leaf, { chain: [one], nowMs: NOW_MS + 60_000 })).toMatch(/expired/);
    expect(reasonOf(leaf, { chain: [one], nowMs: NOW_MS - 60_001 })).toMatch(/not valid yet/);
    const old = await certificateAuthority(DOMAIN, { notAfterMs: NOW_MS - 1000 });
    expect(reasonOf(await issue({}, old), { bundle: bundleOf(DOMAIN, old) })).toMatch(/expired/);
  });

  it('an expired leaf is refused, with a hint to fetch another', async () => {
    const leaf = await issue({ notBeforeMs: NOW_MS - 7_200_000, notAfterMs: NOW_MS - 1000 });
    expect(() =>
      verifyX509Svid({ leaf: leaf.certificate, chain: [] }, { bundle, nowMs: NOW_MS, lenientEku: false }),
    ).toThrow(
      expect.objectContaining({ detail: expect.objectContaining({ hint: expect.stringContaining('expired') }) }),
    );
  });

  it('an unknown critical extension in the leaf is refused', async () => {
    expect(await refusalOf({ extra: [extension('1.3.6.1.4.1.99999.1', true, Buffer.from([0x05, 0x00]))] })).toMatch(
      /unknown critical/,
    );
    expect(
      await refusalOf({ extra: [extension('1.3.6.1.4.1.99999.1', false, Buffer.from([0x05, 0x00]))] }),
    ).toBeUndefined();
  });

  it('a tampered leaf is refused', async () => {
    const { certificate } = await issue({});
    const raw = Buffer.from(certificate.raw);
    const at = raw.indexOf('refunds');
    raw.write('admin--', at);
    const forged = { certificate: new X509Certificate(raw) } as IssuedCertificate;
    expect(reasonOf(forged)).toMatch(/no path/);
  });

  it.each(['P-256', 'P-384', 'P-521', 'rsa', 'ed25519'])('a leaf key of type %s is taken', async (type) => {
    const key =
      type === 'rsa'
        ? keyPair('RS256')
        : type === 'ed25519'
          ? generateKeyPairSync('ed25519')
          : generateKeyPairSync('ec', { namedCurve: type });
    expect(await refusalOf({ key })).toBeUndefined();
  });

  it('an RSA key below 2048 bits is refused', async () => {
    expect(await refusalOf({ key: generateKeyPairSync('rsa', { modulusLength: 1024 }) })).toMatch(/too short/);
  });
});

describe('name constraints of a CA', () => {
  const subtree = (tag: number, text: string) => der(0x30, der(tag, Buffer.from(text)));
  const constraints = (permitted: Buffer[], excluded: Buffer[] = []) =>
    extension(
      '2.5.29.30',
      true,
      der(
        0x30,
        ...(permitted.length > 0 ? [der(0xa0, ...permitted)] : []),
        ...(excluded.length > 0 ? [der(0xa1, ...excluded)] : []),
      ),
    );
  const URI = 0x86;
  const DNS = 0x82;

  it.each<[string, () => Parameters<typeof constraints>, CertificateRequest, boolean]>([
    ['permits this domain', () => [[subtree(URI, DOMAIN)]], {}, true],
    ['permits this domain among others', () => [[subtree(URI, 'a.example'), subtree(URI, DOMAIN)]], {}, true],
    ['permits another', () => [[subtree(URI, 'other.example')]], {}, false],
    ['permits what lies below .example', () => [[subtree(URI, '.example')]], {}, true],
    ['permits what lies below this domain only', () => [[subtree(URI, `.${DOMAIN}`)]], {}, false],
    ['excludes this domain', () => [[], [subtree(URI, DOMAIN)]], {}, false],
    ['excludes another', () => [[], [subtree(URI, 'other.example')]], {}, true],
    ['permits and excludes it', () => [[subtree(URI, DOMAIN)], [subtree(URI, '.example')]], {}, false],
    [
      'is on DNS names, of which there are none',
      () => [[subtree(DNS, 'example')]],
      { subject: '', sanCritical: true },
      true,
    ],
    [
      'is on DNS names, and there is one',
      () => [[subtree(DNS, 'example')]],
      { subject: '', sanCritical: true, dnsNames: ['a.example'] },
      false,
    ],
  ])('one that %s', async (_name, made, request, fine) => {
    const one = await root.issue(caRequest(DOMAIN, { subject: 'CN=constrained', extra: [constraints(...made())] }));
    const reason = reasonOf(await issue(request, one), { chain: [one] });
    if (fine) expect(reason).toBeUndefined();
    else expect(reason).toMatch(/name constraint/);
  });
});

const goSpiffe = vectorsPath('go-spiffe/svid/x509svid/testdata');
(existsSync(goSpiffe) ? describe : describe.skip)(
  'the SVIDs of go-spiffe, which expired in 2020 and 2025, under a clock of their time',
  () => {
    const certificates = (name: string) => {
      const text = readFileSync(`${goSpiffe}/${name}`, 'latin1');
      return (text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []).map(
        (pem) => new X509Certificate(pem),
      );
    };
    const judge = (name: string) => {
      const [leaf, ...chain] = certificates(name) as [X509Certificate, ...X509Certificate[]];
      const nowMs = Date.parse(leaf.validFrom) + 60_000;
      const anybody: TrustBundle = {
        trustDomain: 'example.org',
        jwtKeys: new Map(),
        x509Authorities: [stranger.certificate],
        fetchedAtMs: nowMs,
      };
      try {
        verifyX509Svid({ leaf, chain }, { bundle: anybody, nowMs, lenientEku: false });
        return 'accepted';
      } catch (error) {
        return (error as { detail: { reason: string } }).detail.reason;
      }
    };

    // Their roots are not in the data, so a good one comes as far as the search for a path and no further.
    it.each(['good-cert-and-key.pem', 'good-key-and-cert.pem', 'good-leaf-only.pem', 'good-leaf-and-intermediate.pem'])(
      '%s is well-formed',
      (name) => {
        expect(judge(name)).toBe('SPF-X-6: no path to an authority of the trust domain');
      },
    );

    it.each([
      ['wrong-leaf-ca-true.pem', /^SPF-X-2: the leaf is a CA/],
      ['wrong-leaf-cert-sign.pem', /^SPF-X-2/],
      ['wrong-leaf-crl-sign.pem', /^SPF-X-2/],
      ['wrong-leaf-empty-id.pem', /^SPF-X-1/],
      ['wrong-leaf-no-digital-signature.pem', /^SPF-X-2/],
    ])('%s is refused for the reason in its name', (name, reason) => {
      expect(judge(name)).toMatch(reason);
    });

    it.each(['wrong-intermediate-no-ca.pem', 'wrong-intermediate-no-key-cert-sign.pem'])(
      '%s: the intermediate may not sign',
      (name) => {
        expect(judge(name)).toMatch(/^SPF-X-[67]/);
      },
    );

    it('a corrupt certificate is not read', () => {
      expect(() => certificates('corrupt-cert.pem')).toThrow();
    });
  },
);

if (!existsSync(goSpiffe)) missingVectors('go-spiffe X.509-SVIDs');
