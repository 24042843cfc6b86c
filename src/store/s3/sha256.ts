/** SHA-256, hex: what a request says of its body. For small ones, on this thread. */
import { createHash } from 'node:crypto';

export function sha256Of(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
