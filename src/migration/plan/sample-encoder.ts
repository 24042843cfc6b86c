/** Encodes some pages as a migration would, and throws the stream away: what they take, and how long. */
import { randomUUID } from 'node:crypto';
import { tellTotals } from '../../checkpoint/tell-totals.ts';
import { memoryContext } from '../../checkpoint/vm-plan.ts';
import { openCheckpoint } from '../../context/checkpoint.ts';
import { CheckpointError } from '../../errors/index.ts';
import type { Digest64 } from '../../format/digest.ts';
import {
  type DeltaCache,
  type EncodeOptions,
  type GuestMemory,
  type PageDigests,
  PageEncoder,
  type PageSet,
} from '../../memory/index.ts';
import type { Store } from '../../store/index.ts';

export interface SampleEncoderOptions {
  readonly digest: Digest64;
  readonly encode: Pick<EncodeOptions, 'codec' | 'acceleration' | 'dedup' | 'threads'>;
  /** Memory as it is now: attached memory may move. */
  readonly memory: () => GuestMemory;
  readonly signal: AbortSignal;
}

export interface Sample {
  /** That were encoded: those whose digests were known do not count. */
  readonly pages: number;
  /** Of the whole stream, with what says where the pages are. */
  readonly bytes: number;
  /** Of blocks of pages alone. */
  readonly blockBytes: number;
  readonly ms: number;
}

export class SampleEncoder {
  readonly #options: SampleEncoderOptions;

  constructor(options: SampleEncoderOptions) {
    this.#options = options;
  }

  /** Rejects as a save, and with `CHKPT_ABORTED`. */
  async encode(
    changed: PageSet,
    extra: {
      readonly dedup?: boolean | undefined;
      readonly pageDigests?: PageDigests | undefined;
      readonly deltas?: DeltaCache | undefined;
    } = {},
  ): Promise<Sample> {
    const { digest, encode, memory, signal } = this.#options;
    const store = new CountingStore();
    const begin = performance.now();
    const checkpoint = await openCheckpoint(store, {
      ...{ mode: 'save', digest, createdMs: 0, index: false, signal },
      parent: { uuid: randomUUID(), root: 'ff'.repeat(32) },
      epoch: 1n,
    });
    try {
      let pages = 0;
      let blockBytes = 0;
      const options = { ...encode, ...extra, dedup: extra.dedup ?? encode.dedup, changed };
      const encoder = tellTotals(new PageEncoder(memory(), options), (totals) => {
        pages = totals.pages - totals.parentPages;
        blockBytes = totals.encodedBytes;
      });
      await checkpoint.saveMemory(memoryContext, encoder, { signal });
      await checkpoint.commit();
      return { pages, bytes: store.bytes, blockBytes, ms: performance.now() - begin };
    } catch (error) {
      await checkpoint.abort();
      throw error;
    }
  }
}

class CountingStore implements Store {
  readonly url = 'migration:plan';
  bytes = 0;

  async openWriter(): ReturnType<Store['openWriter']> {
    const count = async (pieces: readonly Uint8Array[]): Promise<void> => {
      for (const piece of pieces) this.bytes += piece.length;
    };
    const nothing = async (): Promise<void> => undefined;
    return { write: (bytes) => count([bytes]), writeAll: count, commit: nothing, abort: nothing };
  }

  async openReader(): ReturnType<Store['openReader']> {
    throw new CheckpointError('CHKPT_UNSUPPORTED', 'nothing was kept');
  }
}
