/** What the many errors of TLS mean to a caller. */
import { CheckpointError } from '../errors/index.ts';
import { isCertificateVerdict } from '../util/certificate-verdict.ts';
import { linkError } from './link.ts';

/**
 * An error of the connecting end. `isSecured`: the listener was found good; what ends the connection after that is most likely its no,
 * which TLS 1.3 often tells by hanging up.
 */
export function tlsError(error: unknown, isSecured: boolean): CheckpointError {
  const code = typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : '';
  const message = error instanceof Error ? error.message : String(error);
  const make = (
    name: 'CHKPT_UNAUTHENTICATED' | 'CHKPT_PEER_REFUSED' | 'CHKPT_PEER_PROTOCOL',
    what: string,
  ): CheckpointError => new CheckpointError(name, what, { cause: error });
  if (isCertificateVerdict(code)) {
    return make('CHKPT_UNAUTHENTICATED', `the certificate of the other side is not good: ${code}`);
  }
  if (/ALERT/.test(code) || /\balert\b/.test(message)) {
    return make('CHKPT_PEER_REFUSED', `the other side refuses the certificate, or has another key: ${code}`);
  }
  if (code.startsWith('ERR_SSL')) return make('CHKPT_PEER_PROTOCOL', `no TLS 1.3 at the other end: ${code}`);
  const failure = linkError(error);
  if (failure.code !== 'CHKPT_LINK_LOST' || !isSecured) return failure;
  return make(
    'CHKPT_PEER_REFUSED',
    'the other side hung up on the handshake: it may not trust this certificate',
  );
}
