export { CheckpointError, type ErrorDetails, type ErrorOptions, withDetails } from './checkpoint-error.ts';
export { type ErrorCode, type ErrorEntry, type ErrorKind, errorTable } from './error-table.ts';
export { errnoName, fromSystemError } from './system-error.ts';
