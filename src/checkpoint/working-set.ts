/**
 * The file of a working set: which blocks of a checkpoint a guest asked for, in order. A hint: a file that is missing, damaged
 * or of another checkpoint costs time, never correctness.
 *
 *   0        8               16      20   24       40
 *   | magic  | u32 version 1 … u32 count | uuid    | count × u32 block numbers | u64 XXH3 of all before |
 */
import { open, rename, unlink, writeFile } from 'node:fs/promises';
import { CheckpointError, fromSystemError } from '../errors/index.ts';
import type { Digest64 } from '../format/digest.ts';
import { parseUuid } from '../format/uuid.ts';

const magic = Buffer.from('\x89CKWS\r\n\n', 'latin1');
const version = 1;
const headBytes = 32;
const digestBytes = 8;

/** The file's bytes. `blocks` are u32 little-endian. */
export function encodeWorkingSet(uuid: string, blocks: Uint8Array, digest: Digest64): Uint8Array {
  const bytes = Buffer.alloc(headBytes + blocks.length + digestBytes);
  magic.copy(bytes);
  bytes.writeUInt32LE(version, 8);
  bytes.writeUInt32LE(blocks.length / 4, 12);
  bytes.set(parseUuid(uuid), 16);
  bytes.set(blocks, headBytes);
  const end = headBytes + blocks.length;
  bytes.writeBigUInt64LE(digest(bytes.subarray(0, end)), end);
  return bytes;
}

/** The block numbers, u32 little-endian. Throws `CHKPT_DIGEST`, `CHKPT_FORMAT`, `CHKPT_VERSION`. */
export function decodeWorkingSet(bytes: Uint8Array, uuid: string, digest: Digest64): Uint8Array {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const end = file.length - digestBytes;
  if (end < headBytes || !file.subarray(0, 8).equals(magic)) throw wrong('CHKPT_FORMAT', 'no working set');
  if (file.readBigUInt64LE(end) !== digest(file.subarray(0, end)))
    throw wrong('CHKPT_DIGEST', 'it is damaged');
  if (file.readUInt32LE(8) !== version) throw wrong('CHKPT_VERSION', 'another version');
  if (file.readUInt32LE(12) * 4 !== end - headBytes)
    throw wrong('CHKPT_FORMAT', 'another length than it says');
  if (!file.subarray(16, headBytes).equals(parseUuid(uuid))) {
    throw wrong('CHKPT_FORMAT', 'it is that of another checkpoint');
  }
  return file.subarray(headBytes, end);
}

function wrong(code: 'CHKPT_DIGEST' | 'CHKPT_FORMAT' | 'CHKPT_VERSION', what: string): CheckpointError {
  return new CheckpointError(code, `the recorded working set cannot be used: ${what}`);
}

/** Reads at most as much as a set of `blockCountMax` blocks has. Throws what `decodeWorkingSet` does, and errors of files. */
export async function readWorkingSet(
  path: string,
  uuid: string,
  blockCountMax: number,
  digest: Digest64,
): Promise<Uint8Array> {
  const bytesMax = headBytes + 4 * blockCountMax + digestBytes;
  try {
    const file = await open(path, 'r');
    try {
      const { size } = await file.stat();
      if (size > bytesMax) throw wrong('CHKPT_FORMAT', 'it is longer than the machine has memory');
      return decodeWorkingSet(await file.readFile(), uuid, digest);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw fromSystemError(error, 'cannot read the working set', { path });
  }
}

/** Replaces the file as a whole. Not made durable: it is a hint. */
export async function writeWorkingSet(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    await writeFile(temporary, bytes, { mode: 0o600 });
    await rename(temporary, path);
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw fromSystemError(error, 'cannot write the working set', { path });
  }
}
