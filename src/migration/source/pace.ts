/** A bandwidth cap: a token bucket that all connections of a migration share. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Pace } from '../wire/stream-stores.ts';

/** What may be sent at once after a pause. */
const burstMs = 20;

/** `bytesPerSecond`: undefined for no cap. */
export function makePace(bytesPerSecond: number | undefined): Pace {
  if (bytesPerSecond === undefined) return async () => undefined;
  const burstBytes = (bytesPerSecond * burstMs) / 1000;
  let credit = burstBytes;
  let last = performance.now();
  return async (bytes, signal) => {
    const now = performance.now();
    credit = Math.min(burstBytes, credit + ((now - last) * bytesPerSecond) / 1000);
    last = now;
    // Whoever sends more than there is pays for it before the next one: pieces are not cut.
    credit -= bytes;
    if (credit < 0) await sleep((-credit / bytesPerSecond) * 1000, undefined, { signal });
  };
}
