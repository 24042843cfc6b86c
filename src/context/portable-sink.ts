import type { Digest64 } from '../format/digest.ts';
import type { PageFrame } from '../format/page-sequence.ts';
import { PageWalk } from '../format/page-walk.ts';
import type { MemoryFrameResult, MemoryFrameSink } from './memory-frames.ts';
import { checkAborted } from './store-call.ts';

/** Where a frame of a memory context stands. */
export interface PageFramePlace {
  readonly frame: number;
  readonly offset: number;
}

/**
 * The loop of every sink without native code: reads, verifies, and shows each frame to `visit`, whose views
 * are valid during the call.
 */
export function portableSink(
  digest: Digest64,
  visit: (frame: PageFrame, place: PageFramePlace) => void,
  bufferBytes?: number,
): MemoryFrameSink {
  return {
    async consume(position, regions, input, onDigests, signal): Promise<MemoryFrameResult> {
      const walk = new PageWalk(position, regions, input.buffered, digest, onDigests, bufferBytes);
      for (let step = walk.step(); step.kind !== 'end'; step = walk.step()) {
        if (step.kind !== 'more') {
          visit(step, walk.place);
          continue;
        }
        checkAborted(signal, undefined);
        const byteCount = await input.read(walk.space());
        if (byteCount === 0) break;
        walk.filled(byteCount);
      }
      return walk.finish();
    },
  };
}

/**
 * A sink that puts guest memory nowhere: every frame is verified except that LZ4 blocks are not decoded. For
 * loads that want the values behind a memory context and not the memory.
 */
export function skipMemorySink(digest: Digest64): MemoryFrameSink {
  return portableSink(digest, () => undefined);
}
