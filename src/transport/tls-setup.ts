/** How TLS is set up on both ends: 1.3 only, certificates on both sides or a key that both have, no tickets. */
import { constants, type X509Certificate } from 'node:crypto';
import type { CommonConnectionOptions, SecureContextOptions, TLSSocket } from 'node:tls';
import type { PeerIdentity } from './connection.ts';
import type { DerivedKeys } from './one-time-key.ts';
import type { TlsOptions } from './security.ts';

const exporterLabel = 'EXPORTER-chkpt-link-1';
const exporterBytes = 32;
const subjectCharsMax = 1024;
/** The one suite that external keys go with: their hash is SHA-256. */
const pskSuite = 'TLS_AES_128_GCM_SHA256';

const version = { minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3' } as const;

export function certificateContext({
  key,
  cert,
  ca,
}: TlsOptions): SecureContextOptions & CommonConnectionOptions {
  return {
    ...version,
    ...{ key, cert, ca: Array.isArray(ca) ? [...ca] : (ca as string | Buffer) },
    ...{ requestCert: true, rejectUnauthorized: true },
    // A ticket would outlive the decision about whom to trust.
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

export function pskContext(): SecureContextOptions {
  // No certificate of anybody counts.
  return { ...version, ca: [], ciphers: pskSuite, secureOptions: constants.SSL_OP_NO_TICKET };
}

/** For `tls.createServer`: the key, for the one identity that goes with it. */
export function pskOfIdentity(keys: DerivedKeys): (socket: TLSSocket, identity: string) => Buffer | null {
  return (_socket, identity) => (identity === keys.identity ? keys.tls : null);
}

/** What ties a proof to this channel. */
export function keyingMaterial(socket: TLSSocket): Buffer {
  return socket.exportKeyingMaterial(exporterBytes, exporterLabel, Buffer.alloc(0));
}

/** Whose certificate the other end has; `undefined`: none. */
export function identityOf(socket: TLSSocket): PeerIdentity | undefined {
  const certificate: X509Certificate | undefined = socket.getPeerX509Certificate();
  if (certificate === undefined) return undefined;
  const { fingerprint256, subject } = certificate;
  return { fingerprint256, subject: subject.replaceAll('\n', ',').slice(0, subjectCharsMax) };
}
