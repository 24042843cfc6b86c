/**
 * Control messages as bytes: those of the commit protocol, with what goes along with them, and the receipts of streams.
 *
 *   u8 type · 7 × 0 · u64 session or 0 · what the type adds
 *
 * Every message is checked as a whole: length, type, and that what must be 0 is.
 */
import type { DestinationMessage, SourceMessage } from '../protocol/terms.ts';
import { wrong } from './record.ts';

/** The first message of each connection, from the source: which attempt to connect it belongs to, and which of its connections it is. */
export interface JoinMessage {
  readonly type: 'join';
  /** 16 bytes; the same on all connections of one attempt. */
  readonly link: Uint8Array;
  /** 0: control; 1 to `count`: data. */
  readonly index: number;
  readonly count: number;
}

/** What the source sends. */
export type ToDestination =
  | JoinMessage
  | (Extract<SourceMessage, { type: 'offer' }> & {
      /** A checkpoint with the header and the device table of the machine. */
      readonly description: Uint8Array;
    })
  | (Extract<SourceMessage, { type: 'end' }> & {
      /** Number of the first stream of the last round; all before it were acknowledged. */
      readonly first: number;
      /** Streams of the last round, the one with the state included. */
      readonly count: number;
      /** SHA-256 of their root digests, in the order of their numbers. */
      readonly root: Uint8Array;
      /** The guest ran, and is to run. */
      readonly runs: boolean;
      /** Pages are missing that one of these streams names: they come when the guest runs. */
      readonly postcopy: boolean;
    })
  | Extract<SourceMessage, { type: 'commit' | 'cancel' | 'ask' }>
  /** The source knows how it ended: it will not ask again. */
  | { readonly type: 'done' };

/** What the destination sends. */
export type ToSource =
  | DestinationMessage
  /** A stream is here, verified and in its place. */
  | {
      readonly type: 'got';
      readonly session: number;
      readonly stream: number;
      /** Root digest, 32 bytes. */
      readonly root: Uint8Array;
    }
  /** Post-copy: threads of the guest wait for these pages. */
  | { readonly type: 'want'; readonly pages: Float64Array }
  /** So many records of pages are in their place, since the connection was made. */
  | { readonly type: 'placed'; readonly count: number }
  /** Why a session was dropped, for people; before `dropped`. */
  | { readonly type: 'reason'; readonly code: string; readonly text: string };

const toDestinationTypes = ['join', 'offer', 'end', 'commit', 'cancel', 'ask', 'done'] as const;
const toSourceTypes = [
  'accept',
  'prepared',
  'running',
  'complete',
  'dropped',
  'aborted',
  'mayHaveRun',
  'got',
  'reason',
  'want',
  'placed',
] as const;

/** Of the commit protocol, not of what goes along with it. */
export function isOfProtocol(message: ToSource): message is DestinationMessage {
  return !['got', 'want', 'placed', 'reason'].includes(message.type);
}

const prefixBytes = 16;
const rootBytes = 32;
const linkBytes = 16;
const codeBytesMax = 64;
const textBytesMax = 1024;
export const streamNumberMax = 2 ** 31;
/** Pages that one message asks for. */
export const wantedMax = 4096;

export function encodeToDestination(message: ToDestination): Uint8Array {
  const session = message.type === 'end' ? message.session : 0;
  return encode(toDestinationTypes.indexOf(message.type), session, tailToDestination(message));
}

export function encodeToSource(message: ToSource): Uint8Array {
  const session = 'session' in message ? message.session : 0;
  return encode(toSourceTypes.indexOf(message.type), session, tailToSource(message));
}

function tailToDestination(message: ToDestination): Uint8Array {
  switch (message.type) {
    case 'join':
      return Buffer.concat([message.link, u32s(message.index, message.count)]);
    case 'offer':
      return message.description;
    case 'end':
      return Buffer.concat([
        message.root,
        u32s(message.first, message.count),
        u32s(message.runs ? 1 : 0, message.postcopy ? 1 : 0),
      ]);
    default:
      return new Uint8Array();
  }
}

function tailToSource(message: ToSource): Uint8Array {
  if (message.type === 'got') return Buffer.concat([message.root, u32s(message.stream, 0)]);
  if (message.type === 'placed') return encodePages(Float64Array.of(message.count));
  if (message.type === 'want') return encodePages(message.pages);
  if (message.type !== 'reason') return new Uint8Array();
  const code = Buffer.from(message.code).subarray(0, codeBytesMax);
  const text = Buffer.from(message.text).subarray(0, textBytesMax);
  return Buffer.concat([u32s(code.length, text.length), code, text]);
}

function encodePages(pages: Float64Array): Uint8Array {
  const bytes = new Uint8Array(8 * pages.length);
  const view = new DataView(bytes.buffer);
  for (const [i, page] of pages.entries()) view.setBigUint64(8 * i, BigInt(page), true);
  return bytes;
}

function encode(type: number, session: number, tail: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(prefixBytes + tail.length);
  bytes[0] = type;
  new DataView(bytes.buffer).setBigUint64(8, BigInt(session), true);
  bytes.set(tail, prefixBytes);
  return bytes;
}

/** Throws `CHKPT_PEER_PROTOCOL`. */
export function decodeToDestination(bytes: Uint8Array): ToDestination {
  const { type, session, tail } = decode(bytes, toDestinationTypes);
  if (type !== 'end') expect(session === 0, type);
  switch (type) {
    case 'join': {
      expect(tail.length === linkBytes + 8, type);
      const [index, count] = readU32s(tail, linkBytes);
      return { type, link: tail.slice(0, linkBytes), index, count };
    }
    case 'offer':
      expect(tail.length > 0, type);
      return { type, description: tail };
    case 'end': {
      expect(tail.length === rootBytes + 16, type);
      const [runs, postcopy] = readU32s(tail, rootBytes + 8);
      expect(runs <= 1 && postcopy <= 1, type);
      const [first, count] = readU32s(tail, rootBytes);
      expect(count > 0 && count <= 256 && first <= streamNumberMax, type);
      const root = tail.slice(0, rootBytes);
      return { type, session, first, count, root, runs: runs === 1, postcopy: postcopy === 1 };
    }
    default:
      expect(tail.length === 0, type);
      return { type };
  }
}

/** Throws `CHKPT_PEER_PROTOCOL`. */
export function decodeToSource(bytes: Uint8Array): ToSource {
  const { type, session, tail } = decode(bytes, toSourceTypes);
  switch (type) {
    case 'got': {
      expect(tail.length === rootBytes + 8, type);
      const [stream, zero] = readU32s(tail, rootBytes);
      expect(zero === 0 && stream <= streamNumberMax, type);
      return { type, session, stream, root: tail.slice(0, rootBytes) };
    }
    case 'reason': {
      expect(session === 0 && tail.length >= 8, type);
      const [codeBytes, textBytes] = readU32s(tail, 0);
      const fits = codeBytes <= codeBytesMax && textBytes <= textBytesMax;
      expect(fits && tail.length === 8 + codeBytes + textBytes, type);
      const text = (from: number, count: number): string =>
        Buffer.from(tail.subarray(from, from + count)).toString('utf8');
      return { type, code: text(8, codeBytes), text: printable(text(8 + codeBytes, textBytes)) };
    }
    case 'placed':
    case 'want': {
      const count = tail.length / 8;
      expect(session === 0 && Number.isInteger(count) && count >= 1 && count <= wantedMax, type);
      const view = new DataView(tail.buffer, tail.byteOffset, tail.length);
      const pages = Float64Array.from({ length: count }, (_, i) => Number(view.getBigUint64(8 * i, true)));
      expect(pages.every(Number.isSafeInteger), type);
      if (type === 'want') return { type, pages };
      expect(count === 1, type);
      return { type, count: pages[0] as number };
    }
    case 'accept':
    case 'dropped':
      expect(tail.length === 0, type);
      return { type, session };
    default:
      expect(session === 0 && tail.length === 0, type);
      return { type };
  }
}

function decode<Type extends string>(
  bytes: Uint8Array,
  types: readonly Type[],
): { readonly type: Type; readonly session: number; readonly tail: Uint8Array } {
  if (bytes.length < prefixBytes) throw wrong(`a control message of ${bytes.length} bytes`);
  const type = types[bytes[0] as number];
  if (type === undefined) throw wrong('a control message of an unknown type');
  const session = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(8, true);
  const isCanonical =
    bytes.subarray(1, 8).every((byte) => byte === 0) && session <= BigInt(Number.MAX_SAFE_INTEGER);
  expect(isCanonical, type);
  return { type, session: Number(session), tail: bytes.subarray(prefixBytes) };
}

function expect(condition: boolean, type: string): void {
  if (!condition) throw wrong(`a malformed message (${type})`);
}

function u32s(first: number, second: number): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, first, true);
  view.setUint32(4, second, true);
  return bytes;
}

function readU32s(bytes: Uint8Array, at: number): [number, number] {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, 8);
  return [view.getUint32(0, true), view.getUint32(4, true)];
}

/** Of a peer: nothing in it may move the cursor of a terminal. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}]/gu, '?');
}

/** What opens a stream on a data connection. */
export interface StreamHead {
  readonly session: number;
  /** Numbered from 0 on in the session, over all connections. */
  readonly stream: number;
  /** Memory; header, devices and cores; or which pages are missing when the guest starts. */
  readonly kind: 'memory' | 'state' | 'missing';
  readonly round: number;
}

/** Of a stream of the kind `missing`: one bit for each page. */
export const missingContext = 'post-copy';
export const missingTag = 'missing';

export const streamHeadBytes = 24;
const streamKinds = ['memory', 'state', 'missing'] as const;

export function encodeStreamHead({ session, stream, kind, round }: StreamHead): Uint8Array {
  const bytes = new Uint8Array(streamHeadBytes);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(session), true);
  view.setUint32(8, stream, true);
  view.setUint32(12, streamKinds.indexOf(kind), true);
  view.setUint32(16, round, true);
  return bytes;
}

/** Throws `CHKPT_PEER_PROTOCOL`. */
export function decodeStreamHead(bytes: Uint8Array): StreamHead {
  if (bytes.length !== streamHeadBytes) throw wrong('a stream head of another length');
  const view = new DataView(bytes.buffer, bytes.byteOffset, streamHeadBytes);
  const session = view.getBigUint64(0, true);
  const kind = streamKinds[view.getUint32(12, true)];
  const stream = view.getUint32(8, true);
  const legal =
    kind !== undefined &&
    session <= BigInt(Number.MAX_SAFE_INTEGER) &&
    stream <= streamNumberMax &&
    view.getUint32(20, true) === 0;
  if (!legal) throw wrong('a malformed stream head');
  return { session: Number(session), stream, kind, round: view.getUint32(16, true) };
}
