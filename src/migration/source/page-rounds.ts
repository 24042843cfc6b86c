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
import { CheckpointError } from '../../errors/index.ts';
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
import { missingContext, missingTag, type StreamHead } from '../wire/messages.ts';
import { wrong } from '../wire/record.ts';
import type { RecordChannel } from '../wire/record-channel.ts';
import { type Pace, StreamSender } from '../wire/stream-stores.ts';
import { raceAbort } from './race-abort.ts';
import { CountedTracker } from './tracking-cost.ts';
import { UrgentPages } from './urgent-pages.ts';

/** Pages of a stream: few enough that a broken link costs little, enough to keep encoder threads busy. */
const streamPagesMax = 32_768;
const streamPagesLeast = 256;
/** Of a round: the destination remembers them. */
const streamsMax = 200;
/** Streams of one connection that are not acknowledged yet; the next one is encoded meanwhile. */
const unacknowledgedMax = 2;
/** Of a stream in post-copy: a page that is wanted waits for no more than two of these. */
const pushPages = 2048;

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

/** Where and how a stream is sent. */
interface Place {
  readonly channel: RecordChannel;
  readonly session: number;
  readonly round: number;
  readonly threads: number;
  /** Every page with its content, whatever the destination had before. */
  readonly whole?: boolean;
  readonly signal: AbortSignal;
}

interface SentCount {
  readonly pages: number;
  readonly bytes: number;
  readonly number: number;
  readonly root: string;
  /** Resolves when it is in place; also when nobody waits for that any more. */
  readonly acknowledged: Promise<void>;
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
  /** Post-copy: pages that were not acknowledged since the guest stopped. */
  #lacking: PageSet | undefined;
  urgent: UrgentPages | undefined;
  #armed = false;
  #session: number | undefined;
  /** Pages of the last round. */
  #lastPages = 0;
  readonly #tracker: CountedTracker | undefined;
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
    this.#tracker = options.tracker && new CountedTracker(options.tracker);
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

  /** What tracking has cost so far. */
  get tracking(): CountedTracker | undefined {
    return this.#tracker;
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
    if (sent.pages !== undefined) this.#lacking?.subtract(sent.pages);
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
    const note = (stream: SentCount): void => {
      roots[stream.number - first] = stream.root;
      bytes += stream.bytes;
      pages += stream.pages;
    };
    // Until a stream takes them they are of nobody.
    const lanes = channels.map(async (channel, lane) => {
      const waiting: Promise<void>[] = [];
      const place = { channel, session, round, threads: this.#threadsOf(channels.length), signal: stop };
      if (lane === 0 && extra !== undefined) {
        const state = await this.#sendStream(place, 'state', extra);
        note(state);
        waiting.push(state.acknowledged);
      }
      for (;;) {
        stop.throwIfAborted();
        const set = queue.takeFirst(streamPages);
        if (set.count() === 0) break;
        const stream = await this.#sendPages(place, set);
        note(stream);
        waiting.push(stream.acknowledged);
        if (waiting.length >= unacknowledgedMax) await waiting.shift();
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

  /**
   * Post-copy: what the destination needs to let the guest run, without its pages. Nothing when none are missing: then `send` does it.
   * The guest stands still.
   */
  async sendState(
    round: number,
    session: number,
    channel: RecordChannel,
    signal: AbortSignal,
    extra: (checkpoint: SaveCheckpoint) => Promise<void>,
  ): Promise<RoundCount & { readonly roots: readonly string[] }> {
    this.#lacking = new PageSet(this.#pageCount);
    this.#lacking.merge(this.#pending);
    this.urgent = new UrgentPages(this.#options.memory, this.#lacking, this.#pending);
    const place = { channel, session, round, threads: 1, signal };
    const bits = this.#lacking.toBits();
    const streams = [
      await this.#sendStream(place, 'state', extra),
      await this.#sendStream(place, 'missing', async (checkpoint) => {
        const context = await checkpoint.openContext(missingContext);
        await context.save(missingTag, bits);
        await context.close();
      }),
    ];
    await raceAbort(Promise.all(streams.map(({ acknowledged }) => acknowledged)), signal);
    const bytes = streams.reduce((sum, stream) => sum + stream.bytes, 0);
    return { pages: 0, deltaPages: 0, bytes, roots: streams.map(({ root }) => root) };
  }

  /** Post-copy, over a new link: what was not acknowledged may not be there. */
  resumeServing(): void {
    for (const { pages } of this.#sent.values()) {
      if (pages !== undefined) this.#pending.merge(pages);
    }
    this.#sent.clear();
  }

  /**
   * Post-copy: the guest runs at the destination. Sends what it lacks, and over the last of at least two channels what is
   * `urgent`; resolves when all is there. Rejects as `send`.
   */
  async serve(
    round: number,
    session: number,
    channels: readonly RecordChannel[],
    signal: AbortSignal,
  ): Promise<RoundCount> {
    const urgent = this.urgent;
    if (urgent === undefined) throw new CheckpointError('CHKPT_INTERNAL', 'no page is missing');
    const over = new AbortController();
    const stop = AbortSignal.any([signal, over.signal]);
    let pages = 0;
    let bytes = 0;
    // In the background: processors are for whoever waits.
    const place = { session, round, threads: 1, signal: stop, whole: true };
    const send = async (at: Place, set: PageSet): Promise<SentCount> => {
      const stream = await this.#sendPages(at, set);
      pages += stream.pages;
      bytes += stream.bytes;
      return stream;
    };
    urgent.use(channels[channels.length - 1] as RecordChannel);
    const pushing = channels.slice(0, -1).map(async (channel) => {
      const waiting: Promise<void>[] = [];
      for (;;) {
        stop.throwIfAborted();
        const set = this.#pending.takeFirst(pushPages);
        if (set.count() === 0) break;
        waiting.push((await send({ ...place, channel }, set)).acknowledged);
        if (waiting.length >= unacknowledgedMax) await waiting.shift();
      }
      await Promise.all(waiting);
    });
    try {
      await raceAbort(Promise.all(pushing), signal);
      while (this.#sent.size > 0) {
        await raceAbort(
          Promise.all([...this.#sent.values()].map((sent) => sent.acknowledged.promise)),
          signal,
        );
      }
      return { pages, deltaPages: 0, bytes };
    } finally {
      over.abort(new CheckpointError('CHKPT_ABORTED', 'this part of the migration is over'));
      for (const { acknowledged } of this.#sent.values()) acknowledged.resolve();
      await Promise.allSettled(pushing);
    }
  }

  #threadsOf(lanes: number): number {
    // The same for small rounds as for large ones: their buffers are warm, and new ones would cost more than they save.
    return Math.max(1, Math.floor((this.#options.encode.threads ?? availableParallelism()) / lanes));
  }

  async #sendPages(place: Place, set: PageSet): Promise<SentCount> {
    let pages = 0;
    const stream = await this.#sendStream(
      place,
      'memory',
      async (checkpoint) => {
        pages = await this.#writePages(checkpoint, set, place);
      },
      set,
    );
    return { ...stream, pages };
  }

  /** Sends one stream. It is noted as sent from before its first byte. */
  async #sendStream(
    place: Place,
    kind: StreamHead['kind'],
    write: (checkpoint: SaveCheckpoint) => Promise<void>,
    pages?: PageSet,
  ): Promise<SentCount> {
    const { channel, session, round, signal } = place;
    const number = this.#nextStream++;
    const sent: SentStream = { pages, root: undefined, acknowledged: deferred(), early: undefined };
    this.#sent.set(number, sent);
    const head = { session, stream: number, kind, round };
    const store = new StreamSender(channel, head, this.#options.pace, signal);
    const root = await this.#writeStream(store, round, signal, write);
    sent.root = root;
    if (sent.early !== undefined) this.acknowledge(number, sent.early);
    return { number, root, bytes: store.bytes, pages: 0, acknowledged: sent.acknowledged.promise };
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
    { round, threads, whole = false, signal }: Place,
  ): Promise<number> {
    const { encode, memory } = this.#options;
    // Later rounds are of pages that were just written: few are equal, and the table of all pages would be made anew.
    const dedup = !whole && (round === 0 ? encode.dedup : (encode.dedup ?? false));
    const pageDigests = whole ? undefined : this.#digests;
    const deltas = whole || round === this.#firstRound ? undefined : this.#deltas;
    const options = { ...encode, dedup, threads, changed, pageDigests, deltas };
    let pages = 0;
    const encoder = tellTotals(new PageEncoder(memory(), options), (totals) => {
      pages = totals.pages - totals.parentPages;
    });
    await checkpoint.saveMemory(memoryContext, encoder, { signal });
    return pages;
  }
}
