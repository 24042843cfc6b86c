import { CheckpointError } from '../errors/index.ts';

/** Fills `target` from a channel. Throws `CHKPT_LINK_LOST` when the other end ends before. */
export async function readExactly(
  channel: { read(target: Uint8Array): Promise<number> },
  target: Uint8Array,
): Promise<void> {
  for (let done = 0; done < target.length; ) {
    const byteCount = await channel.read(target.subarray(done));
    if (byteCount === 0) {
      throw new CheckpointError(
        'CHKPT_LINK_LOST',
        'the other end ended the connection in the middle of a message',
      );
    }
    done += byteCount;
  }
}
