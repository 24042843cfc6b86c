/** SHA-256: what a request says of its body. */
import { createHash, webcrypto } from 'node:crypto';
import { hasNativeAddon, nativeAddon } from '../../native/index.ts';

/** Hexadecimal; on this thread, for small ones. */
export function sha256Of(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Off the main thread. The addon makes no copy; where it cannot there is one, in memory that lasts until the digest is there. */
export async function sha256OfLarge(bytes: Uint8Array): Promise<Buffer> {
  try {
    if (hasNativeAddon()) return Buffer.from(await nativeAddon().sha256(bytes));
  } catch (error) {
    // A runtime that shows nothing of its OpenSSL.
    if ((error as { code?: unknown }).code !== 'CHKPT_UNSUPPORTED') throw error;
  }
  return Buffer.from(await webcrypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>));
}
