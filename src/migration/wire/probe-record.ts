/**
 * What a probe asks and what it is answered, on each of its connections: `u64 number · u64 bytes of data that have come before it`. The
 * source says 0 bytes; the answer has the same number.
 */
import { wrong } from './record.ts';

export interface ProbeMark {
  readonly number: number;
  readonly bytes: number;
}

const markBytes = 16;

export function encodeMark({ number, bytes }: ProbeMark): Uint8Array {
  const record = new Uint8Array(markBytes);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(number), true);
  view.setBigUint64(8, BigInt(bytes), true);
  return record;
}

/** Throws `CHKPT_PEER_PROTOCOL`. */
export function decodeMark(record: Uint8Array): ProbeMark {
  if (record.length !== markBytes) throw wrong('a mark of another length');
  const view = new DataView(record.buffer, record.byteOffset, markBytes);
  const [number, bytes] = [Number(view.getBigUint64(0, true)), Number(view.getBigUint64(8, true))];
  if (!Number.isSafeInteger(number) || !Number.isSafeInteger(bytes)) throw wrong('a mark that cannot be');
  return { number, bytes };
}
