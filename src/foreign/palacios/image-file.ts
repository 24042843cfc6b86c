/**
 * Guest memory to and from the file of `memory_img`. Where a byte of memory is a byte of the file native threads copy between the two;
 * JavaScript sees blocks. Text is made and read here, a MiB at a time.
 */
import { CheckpointError, type ErrorDetails } from '../../errors/index.ts';
import { formatError } from '../../format/bytes.ts';
import type { GuestMemory } from '../../memory/index.ts';
import { awaitNative, callNative, nativeAddon } from '../../native/index.ts';
import { throwIfAborted } from '../../store/failure.ts';
import type { OpenFile } from '../../store/file-system.ts';
import { readAtPosition } from '../../store/readable-file.ts';
import type { TemporaryFile } from '../../store/temporary-file.ts';
import type { ForeignMemoryOptions } from '../foreign-format.ts';
import { checkContext } from './check-context.ts';
import { decodeImagePrefix, encodeImagePrefix, imagePrefixBytes, type PalaciosForm } from './form.ts';
import { decodeImageHead, digitsBelow, type ImageBlocks } from './image-layout.ts';
import { memoryImageContext, memoryImageSchema } from './schema.ts';
import { decodeHex, hexOf } from './text.ts';

/** What native code copies between two looks at the signal. */
const pieceBytesMax = 64 * 1024 * 1024;
const textPieceBytesMax = 1024 * 1024;

/** A part of a block: memory of the image, or none. */
export interface Piece {
  readonly address: number;
  readonly bytes: number;
  readonly isMemory: boolean;
}

/** Bytes of the file. */
export function imageFileBytes(form: PalaciosForm, { blockBytes, blockCount }: ImageBlocks): number {
  const head = form.blockHead(0, blockBytes).length;
  const digits = head === 0 ? 0 : digitsBelow(blockCount) - blockCount;
  const block = head + blockBytes * form.scale + form.blockEnd.length;
  return imagePrefixBytes(form) + block * blockCount + digits;
}

/** The parts of block `index`, ascending. */
export function* piecesOf(
  regions: GuestMemory['regions'],
  index: number,
  { blockBytes }: ImageBlocks,
  bytesMax: number,
): Generator<Piece> {
  const end = (index + 1) * blockBytes;
  for (let address = index * blockBytes; address < end; ) {
    const isIn = ({ base, bytes }: { base: bigint; bytes: bigint }): boolean =>
      Number(base) <= address && address < Number(base + bytes);
    const region = regions.find(isIn);
    const next = regions.find(({ base }) => Number(base) > address);
    const until = region === undefined ? Number(next?.base ?? end) : Number(region.base + region.bytes);
    const bytes = Math.min(until, end, address + bytesMax) - address;
    yield { address, bytes, isMemory: region !== undefined };
    address += bytes;
  }
}

/** Writes the whole file. */
export async function writeImage(
  file: TemporaryFile,
  form: PalaciosForm,
  image: GuestMemory,
  blocks: ImageBlocks,
  { signal, onPages, store }: ForeignMemoryOptions & { readonly store: string },
): Promise<void> {
  await file.append([encodeImagePrefix(form, blocks)]);
  const writePiece = form.scale === 1 ? writePlain : writeText;
  let pages = 0;
  for (let index = 0; index < blocks.blockCount; index += 1) {
    await file.append([form.blockHead(index, blocks.blockBytes)]);
    const bytesMax = form.scale === 1 ? pieceBytesMax : textPieceBytesMax;
    for (const piece of piecesOf(image.regions, index, blocks, bytesMax)) {
      throwIfAborted(signal, store);
      await writePiece(file, image, piece);
      if (piece.isMemory) pages += piece.bytes / 4096;
      onPages?.(pages);
    }
    await file.append([form.blockEnd]);
  }
}

async function writePlain(file: TemporaryFile, image: GuestMemory, piece: Piece): Promise<void> {
  const { address, bytes, isMemory } = piece;
  const output = file.direct();
  if (output === undefined || typeof output.descriptor !== 'number') {
    await file.append([isMemory ? image.read(address, bytes) : new Uint8Array(bytes)]);
    return;
  }
  if (!isMemory) {
    // A hole that the last byte keeps inside the file.
    output.wrote(bytes - 1);
    await file.append([new Uint8Array(1)]);
    return;
  }
  const { descriptor, position } = output;
  const addon = nativeAddon();
  const work = callNative(() =>
    addon.rangeToFile(image.native, BigInt(address), BigInt(bytes), descriptor, position),
  );
  try {
    await image.hold(awaitNative(work));
  } catch (error) {
    throw error instanceof CheckpointError ? error : output.failure(error as Error);
  }
  output.wrote(bytes);
}

async function writeText(file: TemporaryFile, image: GuestMemory, piece: Piece): Promise<void> {
  const { address, bytes, isMemory } = piece;
  const text = isMemory
    ? Buffer.from(hexOf(image.read(address, bytes)), 'latin1')
    : Buffer.alloc(2 * bytes, '0');
  await file.append([text]);
}

/** The bytes of block `index` as they are sent, zeros where the image has no memory. */
export function* wirePieces(
  image: GuestMemory,
  index: number,
  blocks: ImageBlocks,
  bytesMax: number,
): Generator<{ readonly bytes: Uint8Array; readonly pageCount: number }> {
  for (const { address, bytes, isMemory } of piecesOf(image.regions, index, blocks, bytesMax)) {
    const content = isMemory ? image.read(address, bytes) : new Uint8Array(bytes);
    yield { bytes: content, pageCount: isMemory ? bytes / 4096 : 0 };
  }
}

/** Calls `copy` for all memory of `image`, some MiB at a time. */
export async function readImageRegions(
  image: GuestMemory,
  { signal, onPages, store }: ForeignMemoryOptions & { readonly store: string },
  copy: (address: number, bytes: number) => Promise<void>,
): Promise<void> {
  let pages = 0;
  for (const region of image.regions) {
    const end = Number(region.base + region.bytes);
    for (let address = Number(region.base); address < end; ) {
      throwIfAborted(signal, store);
      const bytes = Math.min(end - address, pieceBytesMax);
      await copy(address, bytes);
      address += bytes;
      pages += bytes / 4096;
      onPages?.(pages);
    }
  }
}

const zeros = new Uint8Array(textPieceBytesMax);

/** At most 1 MiB. */
export function isZeroPiece(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes, zeros.subarray(0, bytes.length)) === 0;
}

/** The file of a memory that is being read. */
export interface ImageFile {
  readonly file: OpenFile;
  readonly bytes: number;
  readonly details: ErrorDetails;
}

/** What the file says of itself. Its length must be exactly that of its blocks: nothing is taken for more. */
export async function readBlocks(
  { file, bytes, details }: ImageFile,
  form: PalaciosForm,
): Promise<ImageBlocks> {
  const prefix = new Uint8Array(Math.min(bytes, imagePrefixBytes(form)));
  await readExactly(file, prefix, 0, details);
  const records = decodeImagePrefix(form, prefix);
  checkContext({ name: memoryImageContext, records }, memoryImageSchema);
  const blocks = decodeImageHead(records);
  const expected = imageFileBytes(form, blocks);
  if (bytes !== expected) {
    const code = bytes < expected ? 'CHKPT_TRUNCATED' : 'CHKPT_TRAILING_DATA';
    throw new CheckpointError(code, 'the file of memory has not the length of its blocks', {
      details: { ...details, context: memoryImageContext, expected, actual: bytes },
    });
  }
  return blocks;
}

/** Fills `image`, which is zero. What the file holds outside the regions of the image is not read. */
export async function readImage(
  source: ImageFile,
  form: PalaciosForm,
  image: GuestMemory,
  blocks: ImageBlocks,
  { signal, onPages, store }: ForeignMemoryOptions & { readonly store: string },
): Promise<void> {
  let position = imagePrefixBytes(form);
  let pages = 0;
  const readPiece = form.scale === 1 ? readPlain : readText;
  const bytesMax = form.scale === 1 ? pieceBytesMax : textPieceBytesMax;
  for (let index = 0; index < blocks.blockCount; index += 1) {
    position += await expectBytes(source, form.blockHead(index, blocks.blockBytes), position);
    for (const piece of piecesOf(image.regions, index, blocks, bytesMax)) {
      throwIfAborted(signal, store);
      if (piece.isMemory) {
        await readPiece(source, image, piece, position);
        pages += piece.bytes / 4096;
        onPages?.(pages);
      }
      position += piece.bytes * form.scale;
    }
    position += await expectBytes(source, form.blockEnd, position);
  }
}

async function readPlain(
  source: ImageFile,
  image: GuestMemory,
  piece: Piece,
  position: number,
): Promise<void> {
  const { address, bytes } = piece;
  const { descriptor } = source.file;
  if (descriptor === undefined) {
    const target = new Uint8Array(bytes);
    await readExactly(source.file, target, position, source.details);
    image.write(address, target);
    return;
  }
  const addon = nativeAddon();
  const work = callNative(() =>
    addon.rangeFromFile(image.native, BigInt(address), BigInt(bytes), descriptor, position),
  );
  await image.hold(awaitNative(work));
}

async function readText(
  source: ImageFile,
  image: GuestMemory,
  piece: Piece,
  position: number,
): Promise<void> {
  const digits = new Uint8Array(2 * piece.bytes);
  await readExactly(source.file, digits, position, source.details);
  const place = { context: memoryImageContext, offset: position };
  const bytes = decodeHex(digits, place);
  if (!isZeroPiece(bytes)) image.write(piece.address, bytes);
}

async function expectBytes(source: ImageFile, expected: Uint8Array, position: number): Promise<number> {
  const found = new Uint8Array(expected.length);
  await readExactly(source.file, found, position, source.details);
  if (Buffer.compare(found, expected) === 0) return expected.length;
  throw formatError('a block of memory does not begin or end as it must', {
    context: memoryImageContext,
    offset: position,
  });
}

/** Throws `CHKPT_TRUNCATED` when the file has become shorter. */
export async function readExactly(
  file: OpenFile,
  target: Uint8Array,
  position: number,
  details: ErrorDetails,
): Promise<void> {
  for (let done = 0; done < target.length; ) {
    const byteCount = await readAtPosition(file, target.subarray(done), position + done, details);
    if (byteCount === 0) throw new CheckpointError('CHKPT_TRUNCATED', 'the file is too short', { details });
    done += byteCount;
  }
}

/** Some of the file, from everywhere in it, for the identity of a checkpoint that has none. */
export async function sampleImage({ file, bytes, details }: ImageFile): Promise<Uint8Array> {
  const [count, each] = [64, 4096];
  if (bytes <= count * each) {
    const all = new Uint8Array(bytes);
    await readExactly(file, all, 0, details);
    return all;
  }
  const sample = new Uint8Array(count * each);
  for (let index = 0; index < count; index += 1) {
    const position = Math.floor(((bytes - each) / (count - 1)) * index);
    await readExactly(file, sample.subarray(index * each, (index + 1) * each), position, details);
  }
  return sample;
}
