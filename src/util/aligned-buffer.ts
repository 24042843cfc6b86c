/**
 * Buffers that the kernel copies into at full speed: their data starts where a cache line does.
 *
 * JavaScript cannot see addresses. An allocator that can (the addon has one) is asked when the caller has it;
 * without it the buffer is a view into a larger one. A large block of the C library starts 16 bytes past a
 * page, behind its header, so the view starts 48 bytes further on. Where that guess is wrong nothing but
 * speed is lost.
 */

/** Allocates `byteCount` bytes whose first one is aligned to 64. */
export type AlignedAllocator = (byteCount: number) => Uint8Array;

const lineBytes = 64;
const headerBytes = 16;

/** `byteCount` zero bytes, aligned to 64 as well as that can be had. */
export function allocateAligned(byteCount: number, allocator?: AlignedAllocator): Uint8Array {
  if (allocator !== undefined) return allocator(byteCount);
  return new Uint8Array(new ArrayBuffer(byteCount + lineBytes), lineBytes - headerBytes, byteCount);
}
