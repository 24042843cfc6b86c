/**
 * MANIFEST.json of a `dir:` checkpoint: text ⇄ value. Pure; untrusted input.
 *
 * The file is exactly what `serializeManifest` makes: keys in the order below, two spaces of indentation, a
 * line feed at the end. Anything else is refused, so that no byte of the file can change unnoticed.
 */
import { createHash } from 'node:crypto';
import { CheckpointError, type ErrorDetails } from '../errors/index.ts';
import { encodeName } from '../format/names.ts';
import { contextCountMax, manifestBytesMax } from '../limits.ts';
import {
  decodeManifest,
  hasExactly,
  isByteCount,
  isDigest,
  isEpoch,
  manifestError,
} from './manifest-rules.ts';
import { isPackName } from './pool-names.ts';
import { isSegmentFileName } from './segment-file.ts';
import type { Segment } from './store.ts';
import { isUuid, uuidText } from './temporary-names.ts';

export interface ManifestSegment {
  readonly name: string;
  readonly kind: Segment['kind'];
  /** Base name in the generation's folder. */
  readonly file: string;
  readonly bytes: number;
  readonly frames: number;
  /** SHA-256, hex, over the header digests of the frames. */
  readonly digest: string;
  /** Of a segment of which packs hold a part: its file has the rest, and a map says how both make its bytes. */
  readonly pooled?: PooledSegment | undefined;
}

export interface PooledSegment {
  /** Base name in the generation's folder. */
  readonly map: string;
  /** Bytes of the segment's file. */
  readonly own: number;
  /** SHA-256, hex, of the map. */
  readonly digest: string;
}

/** A file with bytes of several checkpoints. */
export interface ManifestPack {
  /** Base name in the generation's folder. */
  readonly file: string;
  readonly bytes: number;
}

export interface Manifest {
  readonly uuid: string;
  readonly parent: string | null;
  /** Decimal: it can exceed what a JSON number holds. */
  readonly epoch: string;
  /** Root digest, hex. */
  readonly root: string;
  /** Bytes of all segments. */
  readonly bytes: number;
  /** Folder with the files of the segments. */
  readonly generation: string;
  /** By the numbers that maps give them. Present, also when it is empty, where a pool was used. */
  readonly packs?: readonly ManifestPack[] | undefined;
  /** In stream order. */
  readonly segments: readonly ManifestSegment[];
}

const format = 'chkpt directory';
/** 2 where a pool was used: who knows version 1 only could not read it. */
const versions: readonly number[] = [1, 2];
const versionMax = 2;

/** One segment per context, the stream header, and what follows the last context. */
export const segmentCountMax = contextCountMax + 2;

const manifestKeys = [
  'format',
  'version',
  'uuid',
  'parent',
  'epoch',
  'root',
  'bytes',
  'generation',
  'segments',
  'digest',
] as const;
const pooledManifestKeys = [...manifestKeys, 'packs'] as const;
const pooledKeys = ['map', 'own', 'digest'] as const;
const packKeys = ['file', 'bytes'] as const;
const segmentKeys = ['name', 'kind', 'file', 'bytes', 'frames', 'digest'] as const;
const pooledSegmentKeys = [...segmentKeys, 'pooled'] as const;
const segmentKinds: ReadonlySet<unknown> = new Set(['start', 'values', 'memory', 'end']);

const generationPattern = new RegExp(`^${uuidText}(?:\\.[1-9][0-9]{0,5})?$`);

/** The text of the file. */
export function serializeManifest(manifest: Manifest): string {
  const { uuid, parent, epoch, root, bytes, generation } = manifest;
  const packs = manifest.packs?.map(({ file, bytes }) => ({ file, bytes }));
  const segments = manifest.segments.map(({ name, kind, file, bytes, frames, digest, pooled }) => {
    const plain = { name, kind, file, bytes, frames, digest };
    if (pooled === undefined) return plain;
    return { ...plain, pooled: { map: pooled.map, own: pooled.own, digest: pooled.digest } };
  });
  const version = packs === undefined ? 1 : versionMax;
  const start = { format, version, uuid, parent, epoch, root, bytes, generation };
  const content = packs === undefined ? { ...start, segments } : { ...start, packs, segments };
  return `${JSON.stringify({ ...content, digest: manifestDigest(content) }, undefined, 2)}\n`;
}

/**
 * Reads the file. Throws `CHKPT_MANIFEST` unless every rule holds, `CHKPT_VERSION` when a newer chkpt wrote
 * it: not when only its version is damaged.
 */
export function parseManifest(bytes: Uint8Array, details: ErrorDetails): Manifest {
  if (bytes.length > manifestBytesMax) throw manifestError('it is too long', details);
  const { text, value: manifest } = decodeManifest(bytes, details);
  refuseNewerVersion(manifest, text, details);
  const broken = brokenRule(manifest);
  if (broken !== undefined) throw manifestError(broken, details);
  const checked = manifest as unknown as Manifest;
  if (serializeManifest(checked) !== text) throw manifestError('its digest or its layout is wrong', details);
  return checked;
}

/** True for what a writer may call a generation's folder: a UUID, or a UUID and a number. */
export function isGenerationName(text: unknown): text is string {
  return typeof text === 'string' && generationPattern.test(text);
}

/** True for a name that a segment can have: that of a context, docs/format.md section 5. */
function isSegmentName(text: unknown): text is string {
  try {
    return typeof text === 'string' && encodeName(text).length > 0;
  } catch {
    return false;
  }
}

/** SHA-256 over the JSON text with sorted keys and without white space. */
function manifestDigest(content: object): string {
  return createHash('sha256').update(canonicalJson(content)).digest('hex');
}

function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value).sort(([left], [right]) => (left < right ? -1 : 1));
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`).join(',')}}`;
}

function refuseNewerVersion(value: unknown, text: string, details: ErrorDetails): void {
  const header = value as Partial<Record<'format' | 'version', unknown>> | null;
  if (
    header?.format !== format ||
    !Number.isSafeInteger(header.version) ||
    Number(header.version) <= versionMax
  ) {
    return;
  }
  const actual = Number(header.version);
  if (isOursButForVersion(header, actual, text)) throw manifestError('its version was changed', details);
  throw new CheckpointError('CHKPT_VERSION', 'the manifest has a newer version', {
    details: { ...details, expected: versionMax, actual },
  });
}

/** One flipped bit makes 3, 5 or 9 of version 1. The digest tells: only of our own text is it right with the version that it had. */
function isOursButForVersion(value: object, actual: number, text: string): boolean {
  return versions.some((version) => {
    const restored: unknown = { ...value, version };
    if (brokenRule(restored) !== undefined) return false;
    const sound = serializeManifest(restored as Manifest);
    return sound === text.replace(`"version": ${actual},`, `"version": ${version},`);
  });
}

/** The first rule that does not hold, `undefined` when all do. */
function brokenRule(value: unknown): string | undefined {
  const isPooled = typeof value === 'object' && value !== null && 'packs' in value;
  if (!hasExactly(value, isPooled ? pooledManifestKeys : manifestKeys)) {
    return 'its keys are not those of a manifest';
  }
  if (value.format !== format) return 'it is not that of a chkpt directory';
  if (value.version !== (isPooled ? versionMax : 1)) return 'version';
  if (!isUuid(value.uuid)) return 'uuid';
  if (value.parent !== null && !isUuid(value.parent)) return 'parent';
  if (!isEpoch(value.epoch)) return 'epoch';
  if (!isDigest(value.root)) return 'root';
  if (!isByteCount(value.bytes)) return 'bytes';
  if (!isGenerationName(value.generation)) return 'generation';
  if (!isDigest(value.digest)) return 'digest';
  const { segments } = value;
  if (!Array.isArray(segments) || segments.length > segmentCountMax) return 'segments';
  const files = new Set<string>();
  const broken = isPooled ? brokenPackRule((value as Record<'packs', unknown>).packs, files) : undefined;
  return broken ?? brokenSegmentRule(segments, value.bytes, isPooled, files);
}

function brokenPackRule(packs: unknown, files: Set<string>): string | undefined {
  if (!Array.isArray(packs)) return 'packs';
  for (const [index, pack] of packs.entries()) {
    const place = `pack ${index}`;
    if (!hasExactly(pack, packKeys)) return `${place}: its keys are not those of a pack`;
    if (!isPackName(pack.file) || files.has(pack.file)) return `${place}: file`;
    if (!isByteCount(pack.bytes)) return `${place}: bytes`;
    files.add(pack.file);
  }
  return undefined;
}

function brokenSegmentRule(
  segments: readonly unknown[],
  byteCount: number,
  isPooled: boolean,
  files: Set<string>,
): string | undefined {
  let sum = 0;
  for (const [index, segment] of segments.entries()) {
    const place = `segment ${index}`;
    const hasMap = isPooled && typeof segment === 'object' && segment !== null && 'pooled' in segment;
    if (!hasExactly(segment, hasMap ? pooledSegmentKeys : segmentKeys)) {
      return `${place}: its keys are not those of a segment`;
    }
    if (!segmentKinds.has(segment.kind)) return `${place}: kind`;
    if (!isSegmentName(segment.name)) return `${place}: name`;
    if (!isSegmentFileName(segment.file) || files.has(segment.file)) return `${place}: file`;
    if (!isByteCount(segment.bytes)) return `${place}: bytes`;
    if (!isByteCount(segment.frames)) return `${place}: frames`;
    if (!isDigest(segment.digest)) return `${place}: digest`;
    files.add(segment.file);
    if (hasMap && !isPooledSegment((segment as Record<'pooled', unknown>).pooled, segment.bytes, files)) {
      return `${place}: pooled`;
    }
    sum += segment.bytes;
  }
  return sum === byteCount ? undefined : 'the segments do not add up to its bytes';
}

function isPooledSegment(value: unknown, byteCount: number, files: Set<string>): boolean {
  if (!hasExactly(value, pooledKeys)) return false;
  if (!isSegmentFileName(value.map) || files.has(value.map)) return false;
  files.add(value.map);
  return isByteCount(value.own) && value.own <= byteCount && isDigest(value.digest);
}
