import type { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { Evidence } from '../../broker/caller.js';

type PeerCertificates = NonNullable<Evidence['peer']>;

/** A peer's own intermediates; a longer chain is cut, and then does not validate. */
const CHAIN_MAX = 8;

/** A connection's certificates never change (TLS 1.3 has no renegotiation); what they are worth is checked on every request. */
const peers = new WeakMap<TLSSocket, PeerCertificates>();

/** What the client presented on this connection, as evidence: nothing about it is validated here. Undefined when it presented nothing. */
export function peerOf(socket: TLSSocket): PeerCertificates | undefined {
  const known = peers.get(socket);
  if (known) return known;
  const leaf = socket.getPeerX509Certificate();
  if (!leaf) return undefined;
  const peer = { leaf, chain: chainAbove(leaf) };
  peers.set(socket, peer);
  return peer;
}

/** Issuers as linked by OpenSSL. A self-signed certificate is its own issuer: every one is taken once. */
function chainAbove(leaf: X509Certificate): X509Certificate[] {
  const chain: X509Certificate[] = [];
  const seen = new Set([leaf.fingerprint256]);
  for (let at = leaf.issuerCertificate; at && chain.length < CHAIN_MAX; at = at.issuerCertificate) {
    if (seen.has(at.fingerprint256)) break;
    seen.add(at.fingerprint256);
    chain.push(at);
  }
  return chain;
}
