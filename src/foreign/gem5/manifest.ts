/**
 * The manifest beside an m5.cpt, which gem5 ignores: text ⇄ value. Pure; untrusted input.
 *
 * gem5's own reader misses damage of its memory stores; with a manifest every byte of every file counts. A manifest belongs to the m5.cpt
 * whose digest it holds, whatever it is called. The text is exactly what `serializeManifest` makes, so that no byte of it can change
 * unnoticed.
 */
import { createHash } from 'node:crypto';
import { CheckpointError, type ErrorDetails } from '../../errors/index.ts';
import { gem5ManifestBytesMax, gem5TextBytesMax, regionCountMax } from '../../limits.ts';
import { memberEntryBytes } from '../../memory/index.ts';
import { isUuid } from '../../store/temporary-names.ts';
import { isStoreFileName } from './machine.ts';

/** One memory store. */
export interface ManifestStore {
  readonly file: string;
  readonly bytes: number;
  /** For each member its compressed bytes (u32) and XXH3 (u64), little-endian. Together they are the whole file. */
  readonly members: Uint8Array;
}

export interface Gem5Manifest {
  readonly uuid: string;
  /** Bytes and SHA-256, hex, of m5.cpt. */
  readonly text: { readonly bytes: number; readonly digest: string };
  /** Bytes of memory in each member but the last ones. */
  readonly memberBytes: number;
  /** In the order of the machine's ranges. */
  readonly stores: readonly ManifestStore[];
}

const format = 'chkpt gem5';
const version = 1;
const memberBytesMax = 4 * 1024 * 1024;
const digestPattern = /^[0-9a-f]{64}$/;

/** The text of the file. */
export function serializeManifest({ uuid, text, memberBytes, stores }: Gem5Manifest): string {
  const content = {
    format,
    version,
    producer: 'chkpt',
    uuid,
    text: { file: 'm5.cpt', bytes: text.bytes, sha256: text.digest },
    memberBytes,
    stores: stores.map(({ file, bytes, members }) => ({
      file,
      bytes,
      sha256OfMembers: sha256(members),
      members: Buffer.from(members.buffer, members.byteOffset, members.byteLength).toString('base64'),
    })),
  };
  const root = sha256(Buffer.from(JSON.stringify(content)));
  return `${JSON.stringify({ ...content, root }, undefined, 2)}\n`;
}

/** Reads the file. Throws `CHKPT_MANIFEST` unless every rule holds, `CHKPT_VERSION` when a newer chkpt wrote it. */
export function parseManifest(bytes: Uint8Array, details: ErrorDetails): Gem5Manifest {
  if (bytes.length > gem5ManifestBytesMax) throw manifestError('it is too long', details);
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw manifestError('it is not JSON', details, error);
  }
  const manifest = read(value);
  if (manifest !== undefined && serializeManifest(manifest) === text) return manifest;
  refuseNewer(value, details);
  throw manifestError('its digest or its layout is wrong', details);
}

export function manifestError(what: string, details: ErrorDetails, cause?: unknown): CheckpointError {
  return new CheckpointError('CHKPT_MANIFEST', `the manifest is not valid: ${what}`, {
    details,
    ...(cause === undefined ? {} : { cause }),
  });
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The values that count; whatever else is there, the text then differs from what we would write. */
function read(value: unknown): Gem5Manifest | undefined {
  const { uuid, text, memberBytes, stores } = objectOf(value);
  const { bytes, sha256: digest } = objectOf(text);
  if (!isUuid(uuid) || !isCount(bytes, gem5TextBytesMax) || !isDigest(digest)) return undefined;
  if (!isCount(memberBytes, memberBytesMax) || memberBytes === 0 || memberBytes % 4096 !== 0)
    return undefined;
  if (!Array.isArray(stores) || stores.length > regionCountMax) return undefined;
  const checked = stores.map(readStore).filter((store) => store !== undefined);
  if (checked.length !== stores.length) return undefined;
  return { uuid, text: { bytes, digest }, memberBytes, stores: checked };
}

function readStore(value: unknown): ManifestStore | undefined {
  const { file, bytes, members } = objectOf(value);
  if (!isStoreFileName(file) || !isCount(bytes, Number.MAX_SAFE_INTEGER) || typeof members !== 'string')
    return undefined;
  const table = Buffer.from(members, 'base64');
  if (table.length === 0 || table.length % memberEntryBytes !== 0) return undefined;
  let sum = 0;
  for (let at = 0; at < table.length; at += memberEntryBytes) sum += table.readUInt32LE(at);
  return sum === bytes ? { file, bytes, members: table } : undefined;
}

/** A newer version, and not one of ours whose version alone was damaged: then the rest would be right. */
function refuseNewer(value: unknown, details: ErrorDetails): void {
  const { format: found, version: actual } = objectOf(value);
  if (found !== format || !isCount(actual, 0xffff) || actual <= version) return;
  const ours = read(value);
  if (
    ours !== undefined &&
    JSON.stringify({ ...objectOf(value), version }) === JSON.stringify(JSON.parse(serializeManifest(ours)))
  ) {
    throw manifestError('its version was changed', details);
  }
  throw new CheckpointError('CHKPT_VERSION', 'the manifest has a newer version', {
    details: { ...details, expected: version, actual },
  });
}

function objectOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function isDigest(value: unknown): value is string {
  return typeof value === 'string' && digestPattern.test(value);
}

function isCount(value: unknown, most: number): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0 && Number(value) <= most;
}
