/** Reads that give all that was asked for, or an error. */
import { CheckpointError } from '../../errors/index.ts';
import type { StoreReader } from '../store.ts';

export function truncated(store: string): CheckpointError {
  return new CheckpointError('CHKPT_TRUNCATED', 'the encrypted checkpoint was cut off', {
    details: { store },
  });
}

/** As many bytes as there are, up to all of `target`. */
export async function readUpTo(reader: StoreReader, target: Uint8Array): Promise<number> {
  let done = 0;
  while (done < target.length) {
    const byteCount = await reader.read(target.subarray(done));
    if (byteCount === 0) break;
    done += byteCount;
  }
  return done;
}

/** Throws `CHKPT_TRUNCATED`. */
export async function readFully(reader: StoreReader, target: Uint8Array, store: string): Promise<void> {
  if ((await readUpTo(reader, target)) < target.length) throw truncated(store);
}

/** As many bytes as there are at `offset`, up to all of `target`. */
export async function readUpToAt(reader: StoreReader, offset: number, target: Uint8Array): Promise<number> {
  let done = 0;
  while (done < target.length) {
    const byteCount = (await reader.readAt?.(offset + done, target.subarray(done))) ?? 0;
    if (byteCount === 0) break;
    done += byteCount;
  }
  return done;
}

/** Throws `CHKPT_TRUNCATED`. */
export async function readFullyAt(
  reader: StoreReader,
  offset: number,
  target: Uint8Array,
  store: string,
): Promise<void> {
  if ((await readUpToAt(reader, offset, target)) < target.length) throw truncated(store);
}
