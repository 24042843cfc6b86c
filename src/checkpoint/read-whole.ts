/** A checkpoint read to its end without a machine: every digest checked, every page decoded. */
import type { MemoryFrameSink } from '../context/memory-frames.ts';
import type { StreamReader, StreamSummary } from '../context/stream-reader.ts';
import type { Digest64 } from '../format/digest.ts';
import { pageBytes } from '../limits.ts';
import { PageDecoder } from '../memory/index.ts';
import { PortableVerifier } from '../memory/portable-verifier.ts';
import { hasNativeAddon } from '../native/index.ts';
import type { CheckpointContent } from './checkpoint-content.ts';

export interface ReadWholeOptions {
  readonly digest: Digest64;
  readonly threads?: number | undefined;
  /** Takes note of what is read. Asked for when the header has been read. */
  readonly content?: (() => CheckpointContent | undefined) | undefined;
  readonly onMemory?: ((doneBytes: number, memoryBytes: number) => void) | undefined;
}

/** Works without the native addon, slower. Rejects as the reader does. */
export async function readWhole(stream: StreamReader, options: ReadWholeOptions): Promise<StreamSummary> {
  const { digest, threads, onMemory } = options;
  let content: CheckpointContent | undefined;
  let context = '';
  for await (const item of stream) {
    if (item.kind === 'end') {
      if (content !== undefined) content.isTaken = true;
      return item.summary;
    }
    if (item.kind === 'header') content = options.content?.();
    if (item.kind === 'tag') content?.takeTag(context, item.name, item.data);
    if (item.kind !== 'context-open') continue;
    context = item.name;
    if (item.contextKind !== 'memory') continue;
    const pageCount = item.regions.reduce((sum, region) => sum + region.pageCount, 0);
    onMemory?.(0, pageCount * pageBytes);
    const onPages = (pages: number): void => onMemory?.(pages * pageBytes, pageCount * pageBytes);
    const sink: MemoryFrameSink = hasNativeAddon()
      ? new PageDecoder(undefined, { threads, onPages })
      : new PortableVerifier({ digest });
    await stream.readMemory(sink);
  }
  throw new TypeError('a stream ends with END');
}
