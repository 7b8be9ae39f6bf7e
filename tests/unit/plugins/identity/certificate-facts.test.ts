import 'reflect-metadata';
import { X509Certificate } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import { type CertificateFacts, factsOf } from '../../../../src/plugins/identity/certificate-facts.js';
import {
  bitsOf,
  oidOf,
  readAll,
  readChildren,
  readOne,
  smallIntegerOf,
  TAG,
} from '../../../../src/plugins/identity/der.js';
import { BOTH_EKU, type CertificateRequest, caRequest, certificateAuthority, USAGE } from '../../../fakes/issuing.js';

/** Another library's reading of the same bytes. */
function theirs(certificate: X509Certificate) {
  const read = new x509.X509Certificate(certificate.raw);
  const basic = read.getExtension(x509.BasicConstraintsExtension);
  const usage = read.getExtension(x509.KeyUsagesExtension);
  const extended = read.getExtension(x509.ExtendedKeyUsageExtension);
  const names = read.getExtension(x509.SubjectAlternativeNameExtension)?.names.items ?? [];
  return {
    isCa: basic?.ca ?? false,
    pathLengthMax: basic?.pathLength,
    usages: usage?.usages,
    critical: usage?.critical,
    extended: extended?.usages.map(String),
    uris: names.filter((name) => name.type === 'url').map((name) => name.value),
    dnsNames: names.filter((name) => name.type === 'dns').map((name) => name.value),
    notAfterMs: read.notAfter.getTime(),
    notBeforeMs: read.notBefore.getTime(),
  };
}

function ours(facts: CertificateFacts) {
  const usage = facts.keyUsage;
  return {
    isCa: facts.isCa,
    pathLengthMax: facts.pathLengthMax,
    critical: usage?.critical,
    signs: usage?.digitalSignature,
    certifies: usage?.keyCertSign,
    revokes: usage?.crlSign,
    extended: facts.extendedKeyUsage,
    uris: facts.alternativeNames?.uris ?? [],
    dnsNames: facts.alternativeNames?.dnsNames ?? [],
    notAfterMs: facts.notAfterMs,
    notBeforeMs: facts.notBeforeMs,
  };
}

const requests: CertificateRequest[] = [
  {},
  { uris: ['spiffe://a.example/x'], dnsNames: ['a.example', 'b.example'], emails: ['a@b.example'] },
  { uris: ['spiffe://a.example/x', 'https://b.example/'], keyUsage: USAGE.keyAgreement },
  { isCa: true, pathLength: 0, keyUsage: USAGE.keyCertSign },
  { isCa: true, pathLength: 3, keyUsage: USAGE.keyCertSign | USAGE.cRLSign | USAGE.digitalSignature },
  { isCa: true, pathLength: 200, keyUsage: USAGE.cRLSign },
  { keyUsage: null, extendedKeyUsage: null, noBasicConstraints: true },
  { keyUsage: USAGE.decipherOnly | USAGE.digitalSignature, keyUsageCritical: false },
  { extendedKeyUsage: [BOTH_EKU[1] as string, '1.3.6.1.4.1.311.20.2.2'] },
  { notBeforeMs: Date.UTC(2051, 0, 1), notAfterMs: Date.UTC(2060, 5, 1) },
];

it.each(requests)('reads a certificate as another library does: %j', async (request) => {
  const ca = await certificateAuthority('a.example');
  const { certificate } = await ca.issue(request);
  const read = theirs(certificate);
  const { usages, ...expected } = read;
  const has = (bit: number) => (usages === undefined ? undefined : (usages & bit) !== 0);
  expect(ours(factsOf(certificate))).toEqual({
    ...expected,
    signs: has(USAGE.digitalSignature),
    certifies: has(USAGE.keyCertSign),
    revokes: has(USAGE.cRLSign),
  });
});

it('a certificate that OpenSSL reads with one byte changed is read without a crash, or refused', async () => {
  const ca = await certificateAuthority('a.example');
  const { certificate } = await ca.issue(
    caRequest('a.example', { uris: ['spiffe://a.example/x'], dnsNames: ['b.example'] }),
  );
  let read = 0;
  for (let at = 0; at < certificate.raw.length; at += 1) {
    const raw = Buffer.from(certificate.raw);
    raw[at] = (raw[at] as number) ^ 0x41;
    let changed: X509Certificate;
    try {
      changed = new X509Certificate(raw);
    } catch {
      continue;
    }
    try {
      factsOf(changed);
      read += 1;
    } catch (error) {
      expect((error as Error).name).toBe('DerRefused');
    }
  }
  expect(read).toBeGreaterThan(100);
});

describe('DER, and nothing looser', () => {
  const bytes = (hex: string) => Buffer.from(hex, 'hex');

  it.each([
    ['an indefinite length', '3080020101'],
    ['a length in a long form that is not needed', '30810302' + '0101'],
    ['a length with a zero in front', '3082000302' + '0101'],
    ['a long tag', '3f8101030201'],
    ['a value that is cut', '300502'],
    ['a header that is cut', '30'],
    ['a length that is cut', '3082'],
    ['a huge length', '3084ffffffff'],
  ])('%s is refused', (_name, hex) => {
    expect(() => readAll(bytes(hex))).toThrow(expect.objectContaining({ name: 'DerRefused' }));
  });

  it('one element has to fill the bytes', () => {
    expect(readOne(bytes('0500'), 5).content).toHaveLength(0);
    expect(() => readOne(bytes('050000'), 5)).toThrow();
    expect(() => readOne(bytes('0500'), TAG.sequence)).toThrow();
    expect(readChildren(bytes('30040500' + '0500'))).toHaveLength(2);
  });

  it.each([
    ['551d0f', '2.5.29.15'],
    ['2a8648ce3d040302', '1.2.840.10045.4.3.2'],
    ['2b65' + '70', '1.3.101.112'],
    ['8837', '2.999'],
  ])('the object identifier %s is %s', (hex, text) => {
    expect(oidOf(bytes(hex))).toBe(text);
  });

  it.each(['', '80', '5580', '558001', 'ffffffffffffffffffff7f'])('the object identifier %p is refused', (hex) => {
    expect(() => oidOf(bytes(hex))).toThrow();
  });

  it('bits are counted from the first, and unused ones are not there', () => {
    expect(bitsOf(bytes('0780'))).toEqual([true]);
    expect(bitsOf(bytes('0106'))).toEqual([false, false, false, false, false, true, true]);
    for (const hex of ['', '00', '0880']) expect(() => bitsOf(bytes(hex))).toThrow();
  });

  it('a small integer is small and not negative', () => {
    expect(smallIntegerOf(bytes('00'))).toBe(0);
    expect(smallIntegerOf(bytes('00c8'))).toBe(200);
    for (const hex of ['', 'ff', '010000']) expect(() => smallIntegerOf(bytes(hex))).toThrow();
  });
});
