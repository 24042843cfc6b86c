/**
 * The small object at the key of an `s3:` checkpoint: text ⇄ value. Pure; untrusted input.
 *
 * It is the commit: whoever has it, has the checkpoint. It names its data objects without their folder, so that it cannot lead elsewhere.
 * The text is exactly what `serializeManifest` makes, as that of `dir:`.
 */
import { createHash } from 'node:crypto';
import { CheckpointError, type ErrorDetails } from '../../errors/index.ts';
import { memoryBytesMax } from '../../limits.ts';
import {
  decodeManifest,
  hasExactly,
  isByteCount,
  isDigest,
  isEpoch,
  manifestError,
} from '../manifest-rules.ts';
import { isUuid, uuidText } from '../temporary-names.ts';

/** A data object: consecutive bytes of the stream. */
export interface S3Data {
  /** Behind the folder of the checkpoint: UUID, token and number. */
  readonly name: string;
  readonly bytes: number;
  /** As the service gave it, without quotes: every read asks for exactly this object. */
  readonly etag: string;
  /** Bytes of all its parts but the last. */
  readonly partBytes: number;
  /** SHA-256, hex, over the SHA-256s of its parts, 32 bytes each, in order. */
  readonly digest: string;
}

/** A data object of a checkpoint that was replaced, which may be read until then. */
export interface S3Kept {
  readonly name: string;
  /** Milliseconds since 1970, by the clock of who replaced it. */
  readonly untilMs: number;
}

export interface S3Manifest {
  readonly uuid: string;
  readonly parent: string | null;
  /** Decimal: it can exceed what a JSON number holds. */
  readonly epoch: string;
  /** Root digest, hex. */
  readonly root: string;
  /** Bytes of all data objects. */
  readonly bytes: number;
  /** Random, for this commit alone: two saves of one checkpoint have two. */
  readonly token: string;
  /** In stream order. */
  readonly objects: readonly S3Data[];
  readonly kept: readonly S3Kept[];
  /** Tokens of the commits that this one has replaced, newest first: who has lost an answer finds its own. */
  readonly history: readonly string[];
}

/** Most bytes of a manifest, read into memory as a whole. */
export const s3ManifestBytesMax = 1024 * 1024;
/** 256 times 10,000 parts of 5 MiB are 12 TiB; of 8 MiB 19 TiB. */
export const s3ObjectCountMax = 256;
export const s3KeptCountMax = 1024;
export const s3HistoryCountMax = 32;

const format = 'chkpt s3';
const version = 1;
const start = `{\n  "format": "${format}",\n`;
const manifestKeys = [
  'format',
  'version',
  'uuid',
  'parent',
  'epoch',
  'root',
  'bytes',
  'token',
  'objects',
  'kept',
  'history',
  'digest',
] as const;
const dataKeys = ['name', 'bytes', 'etag', 'partBytes', 'digest'] as const;
const keptKeys = ['name', 'untilMs'] as const;

const namePattern = new RegExp(`^${uuidText}\\.[0-9a-f]{32}\\.(?:0|[1-9][0-9]{0,3})$`);
const tokenPattern = /^[0-9a-f]{32}$/;
// It becomes part of a header: nothing that ends one.
const etagPattern = /^[\x21\x23-\x7e]{1,128}$/;

export function dataName(uuid: string, token: string, index: number): string {
  return `${uuid}.${token}.${index}`;
}

/** True for the name of a data object, without its folder. */
export function isDataName(text: unknown): text is string {
  return typeof text === 'string' && namePattern.test(text);
}

export function isEtag(text: unknown): text is string {
  return typeof text === 'string' && etagPattern.test(text);
}

/** True when an object is a manifest of ours, whole or not: any other one is somebody else's. */
export function looksLikeManifest(bytes: Uint8Array): boolean {
  return Buffer.from(bytes.subarray(0, start.length)).equals(Buffer.from(start));
}

/** The text of the object. */
export function serializeManifest(manifest: S3Manifest): string {
  const { uuid, parent, epoch, root, bytes, token } = manifest;
  const objects = manifest.objects.map(({ name, bytes, etag, partBytes, digest }) => ({
    name,
    bytes,
    etag,
    partBytes,
    digest,
  }));
  const kept = manifest.kept.map(({ name, untilMs }) => ({ name, untilMs }));
  const history = [...manifest.history];
  const content = { format, version, uuid, parent, epoch, root, bytes, token, objects, kept, history };
  const digest = createHash('sha256').update(JSON.stringify(content)).digest('hex');
  return `${JSON.stringify({ ...content, digest }, undefined, 2)}\n`;
}

/** Reads the object. Throws `CHKPT_MANIFEST` unless every rule holds, `CHKPT_VERSION` when a newer chkpt wrote it. */
export function parseManifest(bytes: Uint8Array, details: ErrorDetails): S3Manifest {
  if (bytes.length > s3ManifestBytesMax) throw manifestError('it is too long', details);
  if (!looksLikeManifest(bytes)) throw manifestError('the object is something else', details);
  const { text, value: manifest } = decodeManifest(bytes, details);
  refuseNewerVersion(manifest, text, details);
  const broken = brokenRule(manifest);
  if (broken !== undefined) throw manifestError(broken, details);
  const checked = manifest as unknown as S3Manifest;
  if (serializeManifest(checked) !== text) throw manifestError('its digest or its layout is wrong', details);
  return checked;
}

/** Only where a digest is right: else the version is what was damaged. */
function refuseNewerVersion(value: unknown, text: string, details: ErrorDetails): void {
  const { version: actual, digest, ...rest } = value as Record<string, unknown>;
  if (!Number.isSafeInteger(actual) || Number(actual) <= version) return;
  const { format: _, ...others } = rest;
  const content = JSON.stringify({ format, version: actual, ...others });
  const isSound = createHash('sha256').update(content).digest('hex') === digest;
  if (!isSound || !text.endsWith('}\n')) throw manifestError('its version was changed', details);
  throw new CheckpointError('CHKPT_VERSION', 'the manifest has a newer version', {
    details: { ...details, expected: version, actual: Number(actual) },
  });
}

/** The first rule that does not hold, `undefined` when all do. */
function brokenRule(value: unknown): string | undefined {
  if (!hasExactly(value, manifestKeys)) return 'its keys are not those of a manifest';
  if (value.format !== format || value.version !== version) return 'version';
  if (!isUuid(value.uuid)) return 'uuid';
  if (value.parent !== null && !isUuid(value.parent)) return 'parent';
  if (!isEpoch(value.epoch)) return 'epoch';
  if (!isDigest(value.root)) return 'root';
  if (!isByteCount(value.bytes) || BigInt(value.bytes) > 2n * memoryBytesMax) return 'bytes';
  if (!matches(tokenPattern, value.token)) return 'token';
  if (!isDigest(value.digest)) return 'digest';
  const { objects, kept, history } = value;
  if (!isArray(objects, s3ObjectCountMax)) return 'objects';
  if (!isArray(kept, s3KeptCountMax) || !kept.every(isKept)) return 'kept';
  if (!isArray(history, s3HistoryCountMax) || !history.every((one) => matches(tokenPattern, one)))
    return 'history';
  const names = new Set<string>();
  let sum = 0;
  for (const [index, data] of objects.entries()) {
    if (!isData(data) || names.has(data.name)) return `object ${index}`;
    names.add(data.name);
    sum += data.bytes;
  }
  return sum === value.bytes ? undefined : 'the objects do not add up to its bytes';
}

function isData(value: unknown): value is S3Data {
  if (!hasExactly(value, dataKeys)) return false;
  if (!isDataName(value.name) || !isByteCount(value.bytes) || value.bytes === 0) return false;
  if (!isByteCount(value.partBytes) || value.partBytes === 0) return false;
  return isEtag(value.etag) && isDigest(value.digest);
}

function isKept(value: unknown): value is S3Kept {
  return hasExactly(value, keptKeys) && isDataName(value.name) && isByteCount(value.untilMs);
}

function isArray(value: unknown, countMax: number): value is unknown[] {
  return Array.isArray(value) && value.length <= countMax;
}

function matches(pattern: RegExp, value: unknown): value is string {
  return typeof value === 'string' && pattern.test(value);
}
