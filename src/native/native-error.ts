import {
  CheckpointError,
  type ErrorCode,
  type ErrorDetails,
  errnoName,
  errorTable,
} from '../errors/index.ts';

interface NativeError extends Error {
  readonly code: ErrorCode;
  readonly frame?: number;
  readonly offset?: number;
  readonly page?: number;
  readonly errno?: number;
  readonly ofOutput?: boolean;
}

/** Makes a CheckpointError of an error of the addon; other errors pass unchanged. */
export function fromNative(error: unknown, details: ErrorDetails = {}): unknown {
  if (error instanceof CheckpointError || !isNativeError(error)) return error;
  const { frame, offset, page } = error;
  return new CheckpointError(error.code, error.message, { details: { ...details, frame, offset, page } });
}

/** The system's error, with its code as `node:fs` gives it, of an output that native threads write; undefined: it is another error. */
export function outputErrorOf(error: unknown): Error | undefined {
  if (!isNativeError(error) || error.ofOutput !== true) return undefined;
  const { errno, message } = error;
  const code = (errno === undefined ? undefined : errnoName(errno)) ?? 'EIO';
  return Object.assign(new Error(message), { code });
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
