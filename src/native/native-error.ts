import { CheckpointError, type ErrorCode, type ErrorDetails, errorTable } from '../errors/index.ts';

interface NativeError extends Error {
  readonly code: ErrorCode;
  readonly frame?: number;
  readonly offset?: number;
  readonly page?: number;
}

/** Makes a CheckpointError of an error of the addon; other errors pass unchanged. */
export function fromNative(error: unknown, details: ErrorDetails = {}): unknown {
  if (error instanceof CheckpointError || !isNativeError(error)) return error;
  const { frame, offset, page } = error;
  return new CheckpointError(error.code, error.message, { details: { ...details, frame, offset, page } });
}

/** Calls `work` and turns what it throws. */
export function callNative<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw fromNative(error);
  }
}

/** Awaits `work` and turns what it rejects with. */
export async function awaitNative<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw fromNative(error);
  }
}

function isNativeError(error: unknown): error is NativeError {
  return (
    error instanceof Error && 'code' in error && typeof error.code === 'string' && error.code in errorTable
  );
}
