/**
 * Who may connect: the options of both ends, and the policy that decides what a connection needs.
 *
 *   address         nothing      psk                tls                   insecure
 *   unix:           allowed      proof in hello     not possible          as nothing
 *   tcp: loopback   allowed      TLS-PSK + proof    not possible: tls:    as nothing
 *   tcp: elsewhere  refused      TLS-PSK + proof    not possible: tls:    allowed
 *   tls:            refused      TLS-PSK + proof    TLS (psk: + proof)    as nothing
 *
 * A one-time key never travels, and off this machine not even a proof of it does without TLS.
 */
import { CheckpointError } from '../errors/index.ts';
import type { Address } from './address.ts';
import type { PeerIdentity } from './connection.ts';
import type { Purpose } from './purpose.ts';

/** PEM texts. TLS 1.3 only; both ends show a certificate. */
export interface TlsOptions {
  readonly key: string | Buffer;
  /** Own certificate, and what is between it and the CA. */
  readonly cert: string | Buffer;
  /** Who has signed the certificates of the others. The system's own list is not used. */
  readonly ca: string | Buffer | readonly (string | Buffer)[];
  /**
   * May this peer do this? A listener must have it; who connects checks the name in the certificate in any case. Whatever it throws
   * is a no.
   */
  readonly authorise?: ((peer: PeerIdentity, purpose: Purpose) => boolean | Promise<boolean>) | undefined;
  /** Name that the certificate of the listener must have; default: the host of the address. */
  readonly serverName?: string | undefined;
}

/** A key that both ends have and nobody else: random, for one transfer. */
export interface PskOptions {
  /** 32 bytes from a good source of randomness, as `randomBytes(32)`. */
  readonly key: Uint8Array;
  /** How long a listener takes it, milliseconds from `listen()` on; default 60 000. */
  readonly lifeMs?: number | undefined;
  /** How many connections a listener takes it for; default 1. Those of one migration are told apart by their stream. */
  readonly uses?: number | undefined;
}

export interface SecurityOptions {
  readonly tls?: TlsOptions | undefined;
  readonly psk?: PskOptions | undefined;
  /** Allows a connection off this machine that is neither encrypted nor authenticated. */
  readonly insecure?: boolean | undefined;
}

/** How a connection is secured: what carries it, and whether the hello has a proof of the key. */
export interface SecurityPlan {
  readonly channel: 'plain' | 'tls' | 'tls-psk';
  readonly proof: boolean;
  /** What `Peer.security` says. */
  readonly security: 'local' | 'psk' | 'tls' | 'insecure';
}

const keyBytes = 32;
const usesMax = 64;
const lifeMsMax = 3_600_000;

/**
 * Throws `CHKPT_INSECURE` when the address needs more than the options have, `TypeError` and `RangeError` for options that cannot be.
 * `isLocal`: only this machine can reach the address.
 */
export function planSecurity(
  address: Address,
  isLocal: boolean,
  options: SecurityOptions,
  role: 'connect' | 'listen',
): SecurityPlan {
  const { tls, psk, insecure } = options;
  checkPsk(psk);
  if (tls !== undefined) {
    if (address.scheme !== 'tls') throw new TypeError(`${address.scheme}: takes no certificates; use tls:`);
    checkTls(tls, role);
    return { channel: 'tls', proof: psk !== undefined, security: 'tls' };
  }
  if (psk !== undefined) {
    return { channel: address.scheme === 'unix' ? 'plain' : 'tls-psk', proof: true, security: 'psk' };
  }
  if (address.scheme === 'tls') throw insecureError('tls: needs certificates or a one-time key');
  if (isLocal || address.scheme === 'unix') return { channel: 'plain', proof: false, security: 'local' };
  if (insecure === true) return { channel: 'plain', proof: false, security: 'insecure' };
  throw insecureError(`${address.host} can be reached from other machines`);
}

function insecureError(what: string): CheckpointError {
  return new CheckpointError('CHKPT_INSECURE', what);
}

function checkTls({ key, cert, ca, authorise, serverName }: TlsOptions, role: 'connect' | 'listen'): void {
  const isPem = (value: unknown): boolean => typeof value === 'string' || Buffer.isBuffer(value);
  const cas = Array.isArray(ca) ? ca : [ca];
  if (!isPem(key) || !isPem(cert) || cas.length === 0 || !cas.every(isPem)) {
    throw new TypeError('tls: key, cert and ca are PEM texts, and all three are needed');
  }
  if (authorise !== undefined && typeof authorise !== 'function')
    throw new TypeError('tls.authorise is not a function');
  if (role === 'listen' && authorise === undefined) {
    throw new TypeError('tls.authorise is missing: a certificate says who it is, not what that one may do');
  }
  if (serverName !== undefined && typeof serverName !== 'string')
    throw new TypeError('tls.serverName is not a string');
}

function checkPsk(psk: PskOptions | undefined): void {
  if (psk === undefined) return;
  const { key, lifeMs, uses } = psk;
  if (!(key instanceof Uint8Array) || key.length !== keyBytes)
    throw new TypeError(`psk.key is not ${keyBytes} bytes`);
  if (key.every((byte) => byte === key[0])) throw new RangeError('psk.key is not random');
  if (lifeMs !== undefined && !(lifeMs > 0 && lifeMs <= lifeMsMax)) {
    throw new RangeError(`psk.lifeMs is not between 1 and ${lifeMsMax}`);
  }
  if (uses !== undefined && !(Number.isInteger(uses) && uses >= 1 && uses <= usesMax)) {
    throw new RangeError(`psk.uses is not between 1 and ${usesMax}`);
  }
}
