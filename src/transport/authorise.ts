import { CheckpointError } from '../errors/index.ts';
import type { PeerIdentity } from './connection.ts';
import type { Purpose } from './purpose.ts';
import type { TlsOptions } from './security.ts';

/** Asks the caller. Only `true` is a yes. */
export async function isAuthorised(
  authorise: NonNullable<TlsOptions['authorise']>,
  identity: PeerIdentity | undefined,
  purpose: Purpose,
): Promise<boolean> {
  if (identity === undefined) return false;
  try {
    return (await authorise(identity, purpose)) === true;
  } catch {
    return false;
  }
}

export function abortError(signal: AbortSignal | undefined): CheckpointError {
  return new CheckpointError('CHKPT_ABORTED', 'cancelled by the caller', { cause: signal?.reason });
}
