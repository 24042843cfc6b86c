/**
 * File names of the segments in a `dir:` checkpoint: `000-start`, `001-header`, `007-memory.pages`,
 * `012-end`.
 */
import type { Segment } from './store.ts';

/** Longest file name of a segment, in characters, which are all ASCII. */
const fileNameCharactersMax = 100;
const ordinalDigitsMin = 3;
const memorySuffix = '.pages';
const mapSuffix = '.map';

const segmentFilePattern = /^[0-9]{3,6}-[A-Za-z0-9._-]+$/;

/**
 * The name of the file of the segment number `ordinal`. The number makes it unique; the rest is the segment's
 * name for people to read, with every character that is not plain replaced.
 */
export function segmentFileName(ordinal: number, segment: Segment): string {
  const prefix = `${String(ordinal).padStart(ordinalDigitsMin, '0')}-`;
  const suffix = segment.kind === 'memory' ? memorySuffix : '';
  const plain = segment.name.replace(/[^A-Za-z0-9._-]/gu, '_');
  return prefix + plain.slice(0, fileNameCharactersMax - prefix.length - suffix.length) + suffix;
}

/** The name of the file that says which packs hold parts of a segment. */
export function mapFileName(ordinal: number, segment: Segment): string {
  return segmentFileName(ordinal, segment).slice(0, -memorySuffix.length) + mapSuffix;
}

/** True for a plain base name of the form above. */
export function isSegmentFileName(text: unknown): text is string {
  return typeof text === 'string' && text.length <= fileNameCharactersMax && segmentFilePattern.test(text);
}
