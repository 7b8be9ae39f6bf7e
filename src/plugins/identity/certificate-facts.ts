import type { X509Certificate } from 'node:crypto';
import {
  asciiOf,
  bitsOf,
  booleanOf,
  DerRefused,
  oidOf,
  readAll,
  readChildren,
  readOne,
  smallIntegerOf,
  TAG,
} from './der.js';

/**
 * What a certificate says, read from its DER. Node's X509Certificate gives signatures and dates, but its `keyUsage` lists
 * the *extended* usages and its `subjectAltName` is a printed string, so neither can be trusted with a decision.
 */
export interface CertificateFacts {
  notBeforeMs: number;
  notAfterMs: number;
  /** The raw names, to be compared byte by byte. */
  issuer: Buffer;
  subject: Buffer;
  subjectIsEmpty: boolean;
  /** The DER of the SubjectPublicKeyInfo: the key itself, whoever certified it. */
  publicKeyInfo: Buffer;
  signatureAlgorithm: string;
  isCa: boolean;
  pathLengthMax?: number;
  keyUsage?: { critical: boolean; digitalSignature: boolean; keyCertSign: boolean; crlSign: boolean };
  extendedKeyUsage?: string[];
  alternativeNames?: { critical: boolean; uris: string[]; dnsNames: string[]; others: number };
  nameConstraints?: NameConstraints;
  /** Critical extensions that nothing here understands; a certificate that has any is refused. */
  unknownCritical: string[];
}

export interface NameConstraints {
  permittedUris: string[];
  excludedUris: string[];
  /** Constraints on other kinds of names: these are not evaluated, so they refuse whoever has such a name. */
  onOthers: boolean;
}

const OID = {
  keyUsage: '2.5.29.15',
  alternativeName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  certificatePolicies: '2.5.29.32',
  extendedKeyUsage: '2.5.29.37',
} as const;

export const EXTENDED_USAGE = { serverAuth: '1.3.6.1.5.5.7.3.1', clientAuth: '1.3.6.1.5.5.7.3.2' } as const;

const GENERAL_NAME = { dns: 0x82, uri: 0x86 } as const;
const EXTENSIONS_TAG = 0xa3;
const VERSION_TAG = 0xa0;
const facts = new WeakMap<X509Certificate, CertificateFacts>();

/** Reads a certificate once; the same object answers from memory. Throws DerRefused when it is not X.509 v3 in strict DER. */
export function factsOf(certificate: X509Certificate): CertificateFacts {
  let known = facts.get(certificate);
  if (!known) {
    known = readFacts(certificate);
    facts.set(certificate, known);
  }
  return known;
}

function readFacts(certificate: X509Certificate): CertificateFacts {
  const [tbs, signatureAlgorithm] = readChildren(certificate.raw);
  if (tbs === undefined || signatureAlgorithm === undefined) throw new DerRefused('not a certificate');
  const fields = readChildren(tbs.whole);
  if (fields[0]?.tag !== VERSION_TAG || fields[0].content.at(-1) !== 2)
    throw new DerRefused('not an X.509 v3 certificate');
  const [, , , issuer, , subject, publicKeyInfo] = fields;
  if (!issuer || !subject || !publicKeyInfo) throw new DerRefused('not a certificate');
  const result: CertificateFacts = {
    notBeforeMs: dateOf(certificate.validFrom),
    notAfterMs: dateOf(certificate.validTo),
    issuer: issuer.whole,
    subject: subject.whole,
    subjectIsEmpty: subject.content.length === 0,
    publicKeyInfo: publicKeyInfo.whole,
    signatureAlgorithm: oidOf(readOneOid(signatureAlgorithm.whole)),
    isCa: false,
    unknownCritical: [],
  };
  const extensions = fields.slice(7).find((field) => field.tag === EXTENSIONS_TAG);
  if (extensions) readExtensions(extensions.content, result);
  return result;
}

function readOneOid(algorithm: Buffer): Buffer {
  const [oid] = readChildren(algorithm);
  if (oid?.tag !== TAG.oid) throw new DerRefused('a malformed algorithm');
  return oid.content;
}

function dateOf(printed: string): number {
  const ms = Date.parse(printed);
  if (Number.isNaN(ms)) throw new DerRefused('a malformed date');
  return ms;
}

function readExtensions(bytes: Buffer, into: CertificateFacts): void {
  const seen = new Set<string>();
  for (const extension of readChildren(bytes)) {
    const parts = readChildren(extension.whole);
    const id = oidOf(parts[0]?.tag === TAG.oid ? parts[0].content : Buffer.alloc(0));
    if (seen.has(id)) throw new DerRefused(`extension ${id} twice`);
    seen.add(id);
    const critical = parts.length === 3 && parts[1]?.tag === TAG.boolean && booleanOf(parts[1].content);
    const value = parts.at(-1);
    if (parts.length < 2 || parts.length > 3 || value?.tag !== TAG.octetString)
      throw new DerRefused('a malformed extension');
    readExtension(id, critical, value.content, into);
  }
}

function readExtension(id: string, critical: boolean, value: Buffer, into: CertificateFacts): void {
  switch (id) {
    case OID.basicConstraints:
      readBasicConstraints(value, into);
      break;
    case OID.keyUsage: {
      const bits = bitsOf(readOne(value, TAG.bitString).content);
      into.keyUsage = {
        critical,
        digitalSignature: bits[0] === true,
        keyCertSign: bits[5] === true,
        crlSign: bits[6] === true,
      };
      break;
    }
    case OID.extendedKeyUsage:
      into.extendedKeyUsage = readChildren(value).map((usage) => {
        if (usage.tag !== TAG.oid) throw new DerRefused('a malformed extended key usage');
        return oidOf(usage.content);
      });
      break;
    case OID.alternativeName:
      into.alternativeNames = readAlternativeNames(critical, value);
      break;
    case OID.nameConstraints:
      into.nameConstraints = readNameConstraints(value);
      break;
    case OID.certificatePolicies:
      // We require no policy, so every set of policies is acceptable, critical or not.
      break;
    default:
      if (critical) into.unknownCritical.push(id);
  }
}

function readBasicConstraints(value: Buffer, into: CertificateFacts): void {
  const parts = readChildren(value);
  const flag = parts[0]?.tag === TAG.boolean ? parts.shift() : undefined;
  into.isCa = flag !== undefined && booleanOf(flag.content);
  const length = parts.shift();
  if (length) {
    if (length.tag !== TAG.integer) throw new DerRefused('malformed basic constraints');
    into.pathLengthMax = smallIntegerOf(length.content);
  }
  if (parts.length > 0) throw new DerRefused('malformed basic constraints');
}

function readAlternativeNames(critical: boolean, value: Buffer) {
  const names = { critical, uris: [] as string[], dnsNames: [] as string[], others: 0 };
  for (const name of readChildren(value)) {
    if (name.tag === GENERAL_NAME.uri) names.uris.push(asciiOf(name.content));
    else if (name.tag === GENERAL_NAME.dns) names.dnsNames.push(asciiOf(name.content));
    else names.others += 1;
  }
  return names;
}

function readNameConstraints(value: Buffer): NameConstraints {
  const constraints: NameConstraints = { permittedUris: [], excludedUris: [], onOthers: false };
  for (const list of readChildren(value)) {
    const uris =
      list.tag === 0xa0 ? constraints.permittedUris : list.tag === 0xa1 ? constraints.excludedUris : undefined;
    if (!uris) throw new DerRefused('malformed name constraints');
    for (const subtree of readAll(list.content)) {
      const [base] = readChildren(subtree.whole);
      if (base?.tag === GENERAL_NAME.uri) uris.push(asciiOf(base.content));
      else constraints.onOthers = true;
    }
  }
  return constraints;
}
