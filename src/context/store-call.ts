/**
 * The border to stores, which third parties write: what leaves it is a CheckpointError that names the store.
 */
import { CheckpointError, withDetails } from '../errors/index.ts';

/** Calls a store. Whatever it throws that is not a CheckpointError becomes `CHKPT_STORE_FAILED`. */
export async function callStore<T>(
  store: string | undefined,
  what: string,
  call: () => Promise<T>,
): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw storeError(store, what, error);
  }
}

/** Throws `CHKPT_ABORTED` when the caller cancelled. */
export function checkAborted(signal: AbortSignal | undefined, store: string | undefined): void {
  if (signal?.aborted !== true) return;
  throw new CheckpointError('CHKPT_ABORTED', 'cancelled by the caller', {
    details: { store },
    cause: signal.reason,
  });
}

function storeError(store: string | undefined, what: string, error: unknown): unknown {
  if (error instanceof CheckpointError) return withDetails(error, { store });
  if (error instanceof Error && error.name === 'AbortError') {
    return new CheckpointError('CHKPT_ABORTED', 'cancelled by the caller', {
      details: { store },
      cause: error,
    });
  }
  const reason = error instanceof Error ? error.message : String(error);
  return new CheckpointError('CHKPT_STORE_FAILED', `${what} failed: ${reason}`, {
    details: { store },
    cause: error,
  });
}
