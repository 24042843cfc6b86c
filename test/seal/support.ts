/** Sealed streams of noise, and what is stored of them. */
import { createHash } from 'node:crypto';
import { type EncryptOptions, encrypted, type Store } from '../../src/index.ts';
import { noise, type SampleStream, sampleStream, save } from '../store/support/sample-stream.ts';
import { TestStore } from '../support/test-store.ts';

export const key = createHash('sha256').update('key').digest();
export const otherKey = createHash('sha256').update('other key').digest();
export const recordBytes = 4096;

export interface Sealed {
  readonly stream: SampleStream;
  /** What the inner store has. */
  readonly stored: Buffer;
}

/** A stream of so many bytes that begins as a checkpoint does. */
export function streamOf(byteCount: number, seed = 'sealed'): SampleStream {
  const stream = sampleStream(seed, [['memory', 'memory', byteCount]]);
  const bytes = stream.segments[0]?.bytes ?? new Uint8Array();
  bytes.set(noise(`${seed}/noise`, byteCount));
  return { ...stream, bytes };
}

export async function seal(byteCount: number, options: Partial<EncryptOptions> = {}): Promise<Sealed> {
  const inner = new TestStore();
  const stream = streamOf(byteCount);
  await save(encrypted(inner, { key, recordBytes, ...options }), stream);
  return { stream, stored: Buffer.from(inner.bytes ?? []) };
}

/** A store with these bytes in it, with or without random access. */
export function storeWith(
  stored: Uint8Array,
  options: Partial<EncryptOptions> & { readonly isForward?: boolean } = {},
): Store {
  const { isForward = false, ...others } = options;
  const traits = isForward ? { readAt: false, byteLength: false, readBytesMax: 1000 } : {};
  return encrypted(new TestStore(traits, stored), { key, ...others });
}
