import { type ErrorCode, type ErrorKind, errorTable } from './error-table.ts';

const brand: unique symbol = Symbol.for('chkpt.CheckpointError');

/** Where it happened; whatever is known. Offsets and lengths are bytes. */
export interface ErrorDetails {
  readonly store?: string | undefined;
  readonly context?: string | undefined;
  readonly tag?: string | undefined;
  readonly path?: string | undefined;
  /** Sequence number of the frame. */
  readonly frame?: number | bigint | undefined;
  /** Offset in the stream. */
  readonly offset?: number | bigint | undefined;
  /** Guest page number. */
  readonly page?: number | bigint | undefined;
  readonly expected?: string | number | bigint | boolean | undefined;
  readonly actual?: string | number | bigint | boolean | undefined;
}

export interface ErrorOptions {
  readonly details?: ErrorDetails;
  readonly cause?: unknown;
}

/**
 * The one error class of chkpt. `code` is stable; `message` is for people.
 *
 * `instanceof` also holds between two loaded copies of the package: the brand is a registered symbol.
 */
export class CheckpointError extends Error {
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, what: string, options: ErrorOptions = {}) {
    super(describe(what, options.details ?? {}), 'cause' in options ? { cause: options.cause } : undefined);
    this.name = 'CheckpointError';
    this.code = code;
    this.details = options.details ?? {};
    Object.defineProperty(this, brand, { value: true });
  }

  /** Class of the error, from the error table. */
  get kind(): ErrorKind {
    return errorTable[this.code].kind;
  }

  /** What the caller can do about it, from the error table. */
  get advice(): string {
    return errorTable[this.code].advice;
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && brand in value;
  }
}

/** Adds what is known about the place to an error that passes by; other errors pass unchanged. */
export function withDetails(error: unknown, details: ErrorDetails): unknown {
  if (!(error instanceof CheckpointError)) return error;
  const known = definedOnly(error.details);
  if (Object.keys(details).every((name) => name in known)) return error;
  const merged = { ...details, ...known };
  // Details can hold parentheses, `Intel(R)` for one: no pattern finds where they begin.
  const suffix = describe('', known);
  const { message } = error;
  const what = message.endsWith(suffix) ? message.slice(0, message.length - suffix.length) : message;
  return new CheckpointError(error.code, what, {
    details: merged,
    ...(error.cause === undefined ? {} : { cause: error.cause }),
  });
}

function definedOnly(details: ErrorDetails): ErrorDetails {
  return Object.fromEntries(Object.entries(details).filter(([, value]) => value !== undefined));
}

function describe(what: string, details: ErrorDetails): string {
  const places = Object.entries(details)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name} ${value}`);
  return places.length === 0 ? what : `${what} (${places.join(', ')})`;
}
