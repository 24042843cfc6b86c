/** A checkpoint whose memory many machines share: decoded once, mapped privately by each. See docs/lazy-load.md. */
import { createHash } from 'node:crypto';
import { CheckpointError, withDetails } from '../errors/index.ts';
import { hexOf } from '../format/uuid.ts';
import { checkpointDigest } from '../memory/digest.ts';
import { type ClonePages, GuestMemory, ImagePages, type LazyCounts } from '../memory/index.ts';
import type { Store, StoreReader } from '../store/index.ts';
import {
  checkLazyOptions,
  fillThreadsDefault,
  type LazyOptions,
  type ResidentReport,
} from './lazy-options.ts';
import { type KeyOptions, toStore } from './open.ts';
import { type OpenedLayer, openLayer } from './open-layer.ts';
import { type ChainOptions, describeMember, findAncestors } from './parent.ts';

export interface SharedImageOptions
  extends ChainOptions,
    KeyOptions,
    Pick<LazyOptions, 'fillThreads' | 'fillBytesPerSecond' | 'fillDelayMs'> {}

/** Made by `openSharedImage`. */
export class SharedImage implements AsyncDisposable {
  readonly url: string;
  readonly uuid: string;
  /** Root digest, hexadecimal, as END says; verified when all is resident. */
  readonly root: string;
  /** Bytes of the checkpoint, without its parents. */
  readonly checkpointBytes: number;
  /** Resolves when all memory is there and the root digest was verified; rejects with what went wrong, for all clones. */
  readonly resident: Promise<ResidentReport>;
  readonly #pages: ImagePages;

  /** Use `openSharedImage`. */
  constructor(store: Store, uuid: string, opened: OpenedLayer, pages: ImagePages) {
    this.url = store.url;
    this.uuid = uuid;
    this.root = hexOf(opened.map.end.root);
    this.checkpointBytes = opened.map.bytes;
    this.#pages = pages;
    this.resident = this.#finish(opened, performance.now());
    // Machines that were loaded from it learn of a failure.
    this.resident.catch(() => undefined);
  }

  /**
   * New memory with the content of the checkpoint: the memory of one machine, to be loaded with `lazy: { image }`. Throws `CHKPT_CLOSED`,
   * `CHKPT_NO_MEMORY`, and what has made the image fail.
   */
  clone(): GuestMemory {
    return this.#pages.clone();
  }

  /** For loads: the pages of a clone of this image. */
  pagesOf(memory: GuestMemory): ClonePages | undefined {
    return this.#pages.pagesOf(memory);
  }

  counts(): LazyCounts {
    return this.#pages.counts();
  }

  /** No more clones from now on. The image is given back when its last clone is. Harmless when called twice. */
  close(): Promise<void> {
    return this.#pages.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #finish({ headerBytes }: OpenedLayer, begin: number): Promise<ResidentReport> {
    try {
      const digests = await this.#pages.resident();
      const root = createHash('sha256').update(headerBytes).update(digests).digest('hex');
      if (root !== this.root) {
        throw new CheckpointError('CHKPT_ROOT_DIGEST', 'the root digest is not that of the frames', {
          details: { expected: this.root, actual: root },
        });
      }
      return { ...this.#pages.counts(), root, elapsedMs: performance.now() - begin };
    } catch (error) {
      const failure = withDetails(error, { store: this.url });
      this.#pages.fail(failure);
      throw failure;
    }
  }
}

/**
 * Opens the memory of a checkpoint, with its parents, for any number of clones. Header, index and block indexes are verified when it resolves;
 * blocks are when they come.
 *
 * Rejects with `CHKPT_UNSUPPORTED` or `CHKPT_PERMISSION` where it cannot be, with the reason: no userfaultfd, a checkpoint without index or
 * memory, a store that native threads cannot read. Load each machine for itself then. Also `CHKPT_NO_MEMORY`, `CHKPT_PARENT_*`, and errors of
 * kind `damaged` and `io`.
 */
export async function openSharedImage(
  source: string | Store,
  options: SharedImageOptions = {},
): Promise<SharedImage> {
  const { fillThreads, fillBytesPerSecond, fillDelayMs, signal } = options;
  const settings = checkLazyOptions({ fillThreads, fillBytesPerSecond, fillDelayMs });
  const newest = await describeMember(toStore(source, options.key), options);
  const { store, uuid, regions } = newest;
  if (settings === undefined || regions.length === 0)
    throw unsupported(store, 'the checkpoint has no memory');
  const members = [newest, ...(await findAncestors(newest, options))];
  const digest = await checkpointDigest();
  const readers: StoreReader[] = [];
  try {
    const opened: OpenedLayer[] = [];
    for (const member of members) {
      const reader = await member.store.openReader({ signal });
      readers.push(reader);
      const layer = await openLayer(reader, GuestMemory.describe(regions), member.store, member.uuid, digest);
      if ('reason' in layer) throw unsupported(member.store, layer.reason);
      opened.push(layer);
    }
    const pages = await ImagePages.open(regions, {
      layers: opened.map(({ layer }) => layer),
      fillThreads: settings.fillThreads ?? fillThreadsDefault,
      fillBytesPerSecond: settings.fillBytesPerSecond,
      fillDelayMs: settings.fillDelayMs,
      replay: new Uint8Array(0),
    });
    return new SharedImage(store, uuid, opened[0] as OpenedLayer, pages);
  } catch (error) {
    throw withDetails(error, { store: store.url });
  } finally {
    for (const reader of readers) await reader.close();
  }
}

function unsupported(store: Store, reason: string): CheckpointError {
  return new CheckpointError('CHKPT_UNSUPPORTED', reason, { details: { store: store.url } });
}
