/**
 * What a service, the network or the SDK says went wrong, in the terms of a save or a load. Texts of services are untrusted: they are cut
 * and cleaned before anybody sees them.
 */
import { CheckpointError, type ErrorCode, type ErrorDetails } from '../../errors/index.ts';
import { isCertificateVerdict } from '../../util/certificate-verdict.ts';

const networkCodes: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ERR_STREAM_PREMATURE_CLOSE',
]);

const codeOfName: Readonly<Record<string, ErrorCode>> = {
  NoSuchBucket: 'CHKPT_NOT_FOUND',
  CredentialsProviderError: 'CHKPT_PERMISSION',
  QuotaExceeded: 'CHKPT_NO_SPACE',
  InsufficientCapacity: 'CHKPT_NO_SPACE',
  TimeoutError: 'CHKPT_TIMEOUT',
  ETIMEDOUT: 'CHKPT_TIMEOUT',
  ESOCKETTIMEDOUT: 'CHKPT_TIMEOUT',
};

const codeOfStatus: Readonly<Record<number, ErrorCode>> = {
  401: 'CHKPT_PERMISSION',
  403: 'CHKPT_PERMISSION',
  404: 'CHKPT_NOT_FOUND',
  412: 'CHKPT_REPLACED',
  501: 'CHKPT_UNSUPPORTED',
  507: 'CHKPT_NO_SPACE',
};

/** HTTP status of the answer, `undefined` when there was none that could be understood. */
export function statusOf(error: unknown): number | undefined {
  const metadata = fieldOf(error, '$metadata');
  const status = fieldOf(metadata, 'httpStatusCode');
  return typeof status === 'number' ? status : undefined;
}

/** Name of the error, as the service or the SDK has it. */
export function nameOf(error: unknown): string {
  const name = fieldOf(error, 'name');
  return typeof name === 'string' ? name : '';
}

/** True for what may be otherwise when it is asked again: no answer, an overloaded or failing service. */
export function isTransient(error: unknown): boolean {
  if (error instanceof CheckpointError)
    return error.code === 'CHKPT_LINK_LOST' || error.code === 'CHKPT_TIMEOUT';
  const name = nameOf(error);
  if (name === 'AbortError' || name === 'CredentialsProviderError' || isOfCertificate(error)) return false;
  const status = statusOf(error);
  if (status === 501 || status === 507) return false;
  return status === undefined || status >= 500 || status === 408 || status === 429 || status < 300;
}

/**
 * True when the request may have been done although an error came back, or may be done yet. The SDK asks again by itself, and tells only how
 * the last attempt ended: one before it may have been carried out, whatever became of that one.
 */
export function isInDoubt(error: unknown): boolean {
  const attempts = fieldOf(fieldOf(error, '$metadata'), 'attempts');
  return (
    isTransient(error) || nameOf(error) === 'AbortError' || (typeof attempts === 'number' && attempts > 1)
  );
}

/** As the one error class; a `CheckpointError` passes unchanged. */
export function s3Failure(error: unknown, what: string, details: ErrorDetails): CheckpointError {
  if (error instanceof CheckpointError) return error;
  const name = nameOf(error);
  if (name === 'AbortError')
    return new CheckpointError('CHKPT_ABORTED', 'aborted', { details, cause: error });
  return new CheckpointError(codeOf(error), `${what}: ${reasonOf(error)}`, { details, cause: error });
}

function codeOf(error: unknown): ErrorCode {
  // The SDK calls a connection that was reset a timeout, too.
  const code = fieldOf(error, 'code');
  if (typeof code === 'string' && networkCodes.has(code)) return 'CHKPT_LINK_LOST';
  if (isOfCertificate(error)) return 'CHKPT_UNAUTHENTICATED';
  const byName = codeOfName[nameOf(error)];
  if (byName !== undefined) return byName;
  const status = statusOf(error);
  const byStatus = status === undefined ? undefined : codeOfStatus[status];
  if (byStatus !== undefined) return byStatus;
  return (typeof code === 'string' ? codeOfName[code] : undefined) ?? 'CHKPT_IO';
}

/** The service could not prove who it is: nothing was asked of it. */
function isOfCertificate(error: unknown): boolean {
  const code = fieldOf(error, 'code');
  return typeof code === 'string' && isCertificateVerdict(code);
}

function reasonOf(error: unknown): string {
  const status = statusOf(error);
  const code = fieldOf(error, 'code');
  const name = typeof code === 'string' && status === undefined ? code : nameOf(error);
  const message = error instanceof Error ? error.message : String(error);
  const text = [status, name === 'Error' ? '' : name, message === name ? '' : message]
    .filter(Boolean)
    .join(' ');
  return cleaned(text).slice(0, 240);
}

/** Without control characters: it ends up on terminals. */
function cleaned(text: string): string {
  return [...text].map((character) => (character < ' ' || character === '\u007f' ? ' ' : character)).join('');
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}
