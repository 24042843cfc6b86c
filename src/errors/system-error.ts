import { constants } from 'node:os';
import { CheckpointError, type ErrorDetails } from './checkpoint-error.ts';
import type { ErrorCode } from './error-table.ts';

const codeOfErrno: Readonly<Record<string, ErrorCode>> = {
  ENOENT: 'CHKPT_NOT_FOUND',
  ENOTDIR: 'CHKPT_NOT_FOUND',
  ENOSPC: 'CHKPT_NO_SPACE',
  EDQUOT: 'CHKPT_NO_SPACE',
  EFBIG: 'CHKPT_NO_SPACE',
  EACCES: 'CHKPT_PERMISSION',
  EPERM: 'CHKPT_PERMISSION',
  EROFS: 'CHKPT_PERMISSION',
  ELOOP: 'CHKPT_PERMISSION',
  ENOMEM: 'CHKPT_NO_MEMORY',
};

/** Turns an error of `node:fs` (or of any API with errno codes) into a CheckpointError; keeps it as cause. */
export function fromSystemError(error: unknown, what: string, details: ErrorDetails = {}): CheckpointError {
  if (error instanceof CheckpointError) return error;
  const errno = errnoOf(error);
  if (errno === 'ABORT_ERR') return new CheckpointError('CHKPT_ABORTED', 'aborted', { cause: error });
  const code = (errno === undefined ? undefined : codeOfErrno[errno]) ?? 'CHKPT_IO';
  const reason = errno ?? (error instanceof Error ? error.message : String(error));
  return new CheckpointError(code, `${what}: ${reason}`, { details, cause: error });
}

/** `EIO` for 5. libuv has no name for some, EDQUOT among them: "Unknown system error -122". */
export function errnoName(errno: number): string | undefined {
  return Object.entries(constants.errno).find(([, number]) => number === errno)?.[0];
}

function errnoOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  const named = 'errno' in error && typeof error.errno === 'number' ? errnoName(-error.errno) : undefined;
  if (named !== undefined) return named;
  return typeof error.code === 'string' ? error.code : undefined;
}
