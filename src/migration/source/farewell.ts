/** The last word of a migration that came to nothing, to a destination that did not hear it. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Digest64 } from '../../format/digest.ts';
import { decodeToSource } from '../wire/messages.ts';
import type { Received } from '../wire/record-channel.ts';
import { type ConnectOne, SourceLink } from './source-link.ts';

const pauseMs = 1000;

/**
 * A destination that has everything waits for a word. It is given one as long as a link would have been waited for. Resolves to
 * whether it has heard. Never rejects, and holds no process.
 */
export async function sayCancelled(
  connectOne: ConnectOne,
  reconnectMs: number,
  digest: Digest64,
): Promise<boolean> {
  const deadline = AbortSignal.timeout(reconnectMs);
  while (!deadline.aborted) {
    try {
      const link = await SourceLink.connect(connectOne, 0, digest, deadline);
      const onDeadline = (): void => link.destroy();
      deadline.addEventListener('abort', onDeadline, { once: true });
      try {
        await link.send({ type: 'cancel' });
        while (!isFarewell(await link.control.next())) {}
        return true;
      } finally {
        deadline.removeEventListener('abort', onDeadline);
        link.destroy();
      }
    } catch {
      await sleep(pauseMs, undefined, { ref: false });
    }
  }
  return false;
}

/** The destination has given up what it had. */
function isFarewell(record: Received): boolean {
  if (record.type !== 'control') return false;
  const { type } = decodeToSource(record.payload);
  return type === 'dropped' || type === 'aborted';
}
