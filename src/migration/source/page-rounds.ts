/**
 * Sending pages: which are still to be sent, in which streams they go, and which of them the destination has.
 *
 * A round is cut into streams of at most some ten thousand pages. Each connection takes the next one when it is done with the one
 * before; each stream is acknowledged when its pages are in place, and its pages are sent again when that was not heard before the link
 * broke. Rounds do not overlap: the next one begins when all of the last one are acknowledged, so a page never gets older, and what was
 * sent of it in an earlier round is what the destination has: its difference from that may be sent instead.
 */
import { randomUUID } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { tellTotals } from '../../checkpoint/tell-totals.ts';
import { memoryContext } from '../../checkpoint/vm-plan.ts';
import { openCheckpoint } from '../../context/checkpoint.ts';
import type { SaveCheckpoint } from '../../context/save-checkpoint.ts';
import type { Digest64 } from '../../format/digest.ts';
import { pageBytes } from '../../limits.ts';
import {
  DeltaCache,
  type DirtyTracker,
  type EncodeOptions,
  type GuestMemory,
  PageDigests,
  PageEncoder,
  PageSet,
} from '../../memory/index.ts';
import { type Deferred, deferred } from '../../util/deferred.ts';
import { wrong } from '../wire/record.ts';
import type { RecordChannel } from '../wire/record-channel.ts';
import { type Pace, StreamSender } from '../wire/stream-stores.ts';

/** Pages of a stream: few enough that a broken link costs little, enough to keep encoder threads busy. */
const streamPagesMax = 32_768;
const streamPagesLeast = 256;
/** Of a round: the destination remembers them. */
const streamsMax = 200;
/** Streams of one connection that are not acknowledged yet; the next one is encoded meanwhile. */
const unacknowledgedMax = 2;

export interface RoundsOptions {
  /** UUID of the migration: the parent of every stream. */
  readonly migration: string;
  readonly digest: Digest64;
  readonly encode: Pick<EncodeOptions, 'codec' | 'acceleration' | 'dedup' | 'threads'>;
  readonly pace: Pace;
  /** Memory as it is now: attached memory may move. */
  readonly memory: () => GuestMemory;
  /** Bytes of pages that are kept as they were sent; 0: none. */
  readonly deltaCache: number;
  /** One that may be asked while the guest runs; undefined: pages are compared with what was sent. */
  readonly tracker: DirtyTracker | undefined;
}

interface SentStream {
  /** Undefined: the state. */
  readonly pages: PageSet | undefined;
  root: string | undefined;
  readonly acknowledged: Deferred;
  /** Said before this end knew the root itself. */
  early: Uint8Array | undefined;
}

/** What a round came to. */
export interface RoundCount {
  readonly pages: number;
  /** Of these, sent as a difference. */
  readonly deltaPages: number;
  readonly bytes: number;
}

export class PageRounds {
  readonly #options: RoundsOptions;
  readonly #pageCount: number;
  /** Pages that the destination has not got as they are. */
  readonly #pending: PageSet;
  readonly #sent = new Map<number, SentStream>();
  #armed = false;
  #session: number | undefined;
  /** Pages of the last round. */
  #lastPages = 0;
  readonly #tracker: DirtyTracker | undefined;
  /** What was sent of each page, where no tracker can be asked while the guest runs. */
  readonly #digests: PageDigests | undefined;
  /** What was sent of pages, from the round on that is not of all of them. */
  readonly #deltas: DeltaCache | undefined;
  /** The first round of the session: most of its pages are never sent again. */
  #firstRound: number | undefined;
  #nextStream = 0;

  constructor(options: RoundsOptions) {
    this.#options = options;
    this.#pageCount = options.memory().pageCount;
    this.#pending = new PageSet(this.#pageCount);
    this.#tracker = options.tracker;
    this.#digests = options.tracker === undefined ? new PageDigests(this.#pageCount) : undefined;
    const { deltaCache, encode } = options;
    // Differences are as long as their pages where nothing compresses them.
    const canPay = deltaCache >= pageBytes && encode.codec !== 'raw';
    this.#deltas = canPay ? new DeltaCache(this.#pageCount, deltaCache) : undefined;
  }

  /** Pages that are still to be sent, as far as it is known. */
  get pendingPages(): number {
    return this.#tracker === undefined && this.#lastPages > 0 ? this.#lastPages : this.#pending.count();
  }

  /** Number of the next stream. */
  get nextStream(): number {
    return this.#nextStream;
  }

  /**
   * A new link. A destination of the same session has everything that it has acknowledged; one of another session has nothing.
   */
  async begin(session: number): Promise<void> {
    const isNew = session !== this.#session;
    if (isNew) this.#pending.markRun(0, this.#pageCount);
    for (const { pages, acknowledged } of this.#sent.values()) {
      if (pages !== undefined) this.#putBack(pages);
      acknowledged.resolve();
    }
    this.#sent.clear();
    if (this.#tracker !== undefined && !this.#armed) {
      await this.#tracker.arm();
      this.#armed = true;
    }
    if (isNew) {
      this.#digests?.forget(this.#pending);
      this.#deltas?.forget(this.#pending);
      this.#firstRound = undefined;
    }
    this.#session = session;
    if (!isNew) await this.look();
  }

  /** What was written counts as not sent. Resolves to how many pages are pending, as far as that is known. */
  async look(): Promise<number> {
    if (this.#tracker === undefined) {
      // Every page is compared with what was sent when the next round is encoded; as many as in this one have changed, for all that is known.
      this.#pending.markRun(0, this.#pageCount);
      return this.#lastPages;
    }
    this.#pending.merge(await this.#tracker.harvest());
    return this.#pending.count();
  }

  /** Pages that may not have arrived. */
  #putBack(pages: PageSet): void {
    this.#pending.merge(pages);
    this.#digests?.forget(pages);
    // Part of a stream may be in place, and a difference is not to be applied twice.
    this.#deltas?.forget(pages);
  }

  /** A stream is in place at the destination. Throws `CHKPT_PEER_PROTOCOL` for one that was not sent, or is another. */
  acknowledge(stream: number, root: Uint8Array): void {
    const sent = this.#sent.get(stream);
    // Of an older link, or a copy.
    if (sent === undefined) return;
    if (sent.root === undefined) {
      sent.early = root;
      return;
    }
    if (sent.root !== Buffer.from(root).toString('hex')) throw wrong('a receipt for another stream');
    this.#sent.delete(stream);
    sent.acknowledged.resolve();
  }

  /**
   * Sends what is pending over `channels`, and resolves when all is in place. `extra`: a stream that goes before the pages of the first
   * channel. Rejects when a connection fails, and with `CHKPT_ABORTED`; then what is not acknowledged counts as not sent with the next `begin`.
   */
  async send(
    round: number,
    session: number,
    channels: readonly RecordChannel[],
    signal: AbortSignal,
    extra?: (checkpoint: SaveCheckpoint) => Promise<void>,
  ): Promise<RoundCount & { readonly roots: readonly string[] }> {
    const failed = new AbortController();
    const stop = AbortSignal.any([signal, failed.signal]);
    const queue = this.#pending.take();
    const queued = queue.count();
    /** That were sent: pages that are known to be there as they are do not count. */
    let pages = 0;
    this.#firstRound ??= round;
    const deltasBefore = this.#deltas?.counts().deltas ?? 0;
    const streamPages = Math.max(
      streamPagesLeast,
      Math.ceil(queued / streamsMax),
      Math.min(Math.ceil(queued / channels.length), streamPagesMax, Math.ceil(this.#pageCount / 2)),
    );
    const first = this.#nextStream;
    const roots: string[] = [];
    let bytes = 0;
    // Until a stream takes them they are of nobody.
    const lanes = channels.map(async (channel, lane) => {
      const waiting: Promise<void>[] = [];
      const run = async (
        kind: 'memory' | 'state',
        set: PageSet | undefined,
        write: (checkpoint: SaveCheckpoint) => Promise<void>,
      ): Promise<void> => {
        const head = { session, stream: this.#nextStream++, kind, round };
        const sent: SentStream = { pages: set, root: undefined, acknowledged: deferred(), early: undefined };
        this.#sent.set(head.stream, sent);
        const store = new StreamSender(channel, head, this.#options.pace, stop);
        const root = await this.#writeStream(store, round, stop, write);
        roots[head.stream - first] = root;
        bytes += store.bytes;
        sent.root = root;
        if (sent.early !== undefined) this.acknowledge(head.stream, sent.early);
        waiting.push(sent.acknowledged.promise);
        if (waiting.length >= unacknowledgedMax) await waiting.shift();
      };
      if (lane === 0 && extra !== undefined) await run('state', undefined, extra);
      for (;;) {
        stop.throwIfAborted();
        const set = queue.takeFirst(streamPages);
        if (set.count() === 0) break;
        await run('memory', set, async (checkpoint) => {
          pages += await this.#writePages(checkpoint, set, round, channels.length, stop);
        });
      }
      await Promise.all(waiting);
      stop.throwIfAborted();
    });
    try {
      await raceAbort(Promise.all(lanes), signal);
    } catch (error) {
      failed.abort(error);
      // Nobody waits for receipts any more; what was not acknowledged stays noted.
      for (const { acknowledged } of this.#sent.values()) acknowledged.resolve();
      await Promise.allSettled(lanes);
      this.#pending.merge(queue);
      throw error;
    }
    this.#lastPages = pages;
    return { pages, deltaPages: (this.#deltas?.counts().deltas ?? 0) - deltasBefore, bytes, roots };
  }

  async #writeStream(
    store: StreamSender,
    round: number,
    signal: AbortSignal,
    write: (checkpoint: SaveCheckpoint) => Promise<void>,
  ): Promise<string> {
    const checkpoint = await openCheckpoint(store, {
      mode: 'save',
      digest: this.#options.digest,
      uuid: randomUUID(),
      createdMs: 0,
      // No checkpoint has this root: outside of its migration a round cannot be loaded.
      parent: { uuid: this.#options.migration, root: 'ff'.repeat(32) },
      epoch: BigInt(round + 1),
      index: false,
      signal,
    });
    try {
      await write(checkpoint);
      return (await checkpoint.commit()).root;
    } catch (error) {
      await checkpoint.abort();
      throw error;
    }
  }

  async #writePages(
    checkpoint: SaveCheckpoint,
    changed: PageSet,
    round: number,
    lanes: number,
    signal: AbortSignal,
  ): Promise<number> {
    const { encode, memory } = this.#options;
    // The same for small rounds as for large ones: their buffers are warm, and new ones would cost more than they save.
    const threads = Math.max(1, Math.floor((encode.threads ?? availableParallelism()) / lanes));
    // Later rounds are of pages that were just written: few are equal, and the table of all pages would be made anew.
    const dedup = round === 0 ? encode.dedup : (encode.dedup ?? false);
    const deltas = round === this.#firstRound ? undefined : this.#deltas;
    const options = { ...encode, dedup, threads, changed, pageDigests: this.#digests, deltas };
    let pages = 0;
    const encoder = tellTotals(new PageEncoder(memory(), options), (totals) => {
      pages = totals.pages - totals.parentPages;
    });
    await checkpoint.saveMemory(memoryContext, encoder, { signal });
    return pages;
  }
}

/** Lanes that wait for a receipt do not hear of an abort. */
async function raceAbort<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let onAbort = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
  });
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
