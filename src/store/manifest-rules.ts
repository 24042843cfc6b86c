/** What the manifests of stores have in common: text that nobody has to trust, and the rules for its values. Pure. */
import { CheckpointError, type ErrorDetails } from '../errors/index.ts';

const digestPattern = /^[0-9a-f]{64}$/;
const epochPattern = /^(?:0|[1-9][0-9]{0,19})$/;
const epochMax = 2n ** 64n - 1n;

export function manifestError(what: string, details: ErrorDetails, cause?: unknown): CheckpointError {
  return new CheckpointError('CHKPT_MANIFEST', `the manifest is not valid: ${what}`, {
    details,
    ...(cause === undefined ? {} : { cause }),
  });
}

/** The text of a manifest, and what it says. Throws `CHKPT_MANIFEST`. */
export function decodeManifest(
  bytes: Uint8Array,
  details: ErrorDetails,
): { readonly text: string; readonly value: unknown } {
  const text = decode(bytes, details);
  return { text, value: parseJson(text, details) };
}

function decode(bytes: Uint8Array, details: ErrorDetails): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw manifestError('it is not UTF-8', details, error);
  }
}

function parseJson(text: string, details: ErrorDetails): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw manifestError('it is not JSON', details, error);
  }
}

export function hasExactly<Key extends string>(
  value: unknown,
  keys: readonly Key[],
): value is Record<Key, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  return Object.keys(value).length === keys.length && keys.every((key) => Object.hasOwn(value, key));
}

/** SHA-256, hexadecimal. */
export function isDigest(value: unknown): value is string {
  return typeof value === 'string' && digestPattern.test(value);
}

export function isByteCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

/** Decimal: it can exceed what a JSON number holds. */
export function isEpoch(value: unknown): value is string {
  return typeof value === 'string' && epochPattern.test(value) && BigInt(value) <= epochMax;
}
