/**
 * Errors of the file system and of third-party stores, told in the terms of a save or a load. Which code an
 * errno becomes depends on what was being done.
 */
import { CheckpointError, type ErrorDetails, fromSystemError } from '../errors/index.ts';
import { errnoOf } from './file-system.ts';

/**
 * A call of a save failed. "No such file" does not mean that there is no checkpoint here: something that this
 * save made itself is gone.
 */
export function saveFailure(error: unknown, what: string, details: ErrorDetails): CheckpointError {
  const failure = fromSystemError(error, what, details);
  if (failure.code !== 'CHKPT_NOT_FOUND') return failure;
  return new CheckpointError('CHKPT_IO', `${what}: ${errnoOf(error)}, it was removed meanwhile`, {
    details,
    cause: error,
  });
}

/** A flush failed. Only a lack of space has a better name than "not durable". */
export function flushFailure(error: unknown, what: string, details: ErrorDetails): CheckpointError {
  const failure = fromSystemError(error, what, details);
  if (failure.code === 'CHKPT_NO_SPACE') return failure;
  return new CheckpointError('CHKPT_DURABILITY', `${what}: ${reasonOf(error)}`, { details, cause: error });
}

/** Throws `CHKPT_ABORTED` when the caller has cancelled. */
export function throwIfAborted(signal: AbortSignal | undefined, store: string): void {
  if (signal?.aborted !== true) return;
  throw new CheckpointError('CHKPT_ABORTED', 'aborted', { details: { store }, cause: signal.reason });
}

/** The errno code of an error, or its message. */
export function reasonOf(error: unknown): string {
  return errnoOf(error) ?? (error instanceof Error ? error.message : String(error));
}

/** What a store threw, as the one error class; a `CheckpointError` passes unchanged. */
export function fromStore(
  error: unknown,
  call: string,
  signal: AbortSignal | undefined,
  url: string,
): CheckpointError {
  if (error instanceof CheckpointError) return error;
  if (signal?.aborted === true) {
    return new CheckpointError('CHKPT_ABORTED', 'aborted', { details: { store: url }, cause: error });
  }
  return storeFailure(`${call}() failed: ${reasonOf(error)}`, url, error);
}

export function storeFailure(what: string, url: string, cause?: unknown): CheckpointError {
  return new CheckpointError('CHKPT_STORE_FAILED', what, {
    details: { store: url },
    ...(cause === undefined ? {} : { cause }),
  });
}
