/**
 * What a destination does with the streams that come: pages go straight into the memory of the machine, frame by frame verified; the
 * state is kept until all is here. Rounds come one after the other, and no page of an older one behind one of a newer.
 */
import { createHash } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { ChangeLog } from '../../checkpoint/change-log.ts';
import { type Apply, loadHeader, readStates } from '../../checkpoint/machine-states.ts';
import type { VirtualMachine } from '../../checkpoint/virtual-machine.ts';
import { checkHeader, type IgnoredMismatch } from '../../checkpoint/vm-header.ts';
import { memoryContext, planOf } from '../../checkpoint/vm-plan.ts';
import { openCheckpoint } from '../../context/checkpoint.ts';
import type { LoadCheckpoint } from '../../context/load-checkpoint.ts';
import type { Digest64 } from '../../format/digest.ts';
import { ArrivingPages, ChainLoad, PageDecoder, PageSet } from '../../memory/index.ts';
import { missingContext, missingTag, type StreamHead, type ToDestination } from '../wire/messages.ts';
import { wrong } from '../wire/record.ts';
import type { RecordChannel } from '../wire/record-channel.ts';
import { StreamReceiver } from '../wire/stream-stores.ts';

export interface IntakeOptions {
  /** UUID of the migration. */
  readonly migration: string;
  readonly digest: Digest64;
  readonly threads: number | undefined;
  readonly ignore: readonly IgnoredMismatch[];
  readonly signal: AbortSignal;
  readonly onStream: (streams: number) => void;
  /** Pages come while the guest runs, and how many are missing. */
  readonly onPages?: ((missing: number) => void) | undefined;
}

type EndMessage = Extract<ToDestination, { type: 'end' }>;

/** Streams of the last round that are remembered; more than a round can have. */
const rememberedMax = 1024;

export class Intake {
  readonly #vm: VirtualMachine;
  readonly #options: IntakeOptions;
  /** Root digests of the streams that are in place, by number: the newest. */
  readonly #roots = new Map<number, Buffer>();
  #round = -1;
  #inProgress = 0;
  readonly #running = new Set<Promise<unknown>>();
  #touched = false;
  /** Pages that are missing when the guest starts, and the number of the stream that said so. */
  #missing: { readonly stream: number; readonly pages: PageSet } | undefined;
  /** Post-copy, from before PREPARED on. */
  arriving: ArrivingPages | undefined;
  #apply: { readonly stream: number; readonly states: readonly Apply[] } | undefined;
  streams = 0;
  /** Connections that bring pages: threads are divided among them. */
  lanes = 1;

  constructor(vm: VirtualMachine, options: IntakeOptions) {
    this.#vm = vm;
    this.#options = options;
  }

  /** The machine holds parts of a guest. */
  get touched(): boolean {
    return this.#touched;
  }

  /**
   * Takes one stream, whose head was read, and resolves to its root digest when all of it is in place; to nothing when the source gave
   * it up. Rejects with
   * `CHKPT_PEER_PROTOCOL`, errors of kind `damaged` and `mismatch`, and those of the connection.
   */
  async take(channel: RecordChannel, head: StreamHead): Promise<Uint8Array | undefined> {
    if (head.round < this.#round || (head.round > this.#round && this.#inProgress > 0)) {
      throw wrong(`a stream of round ${head.round} in round ${this.#round}`);
    }
    this.#round = head.round;
    if (!this.#touched) {
      this.#touched = true;
      this.#vm.beginLoad();
      // What it knows of an older checkpoint is not true of this guest.
      if (this.#vm.dirtyTracker !== undefined) ChangeLog.of(this.#vm.dirtyTracker).reset();
      await this.#vm.memory?.replaceMissingPages(undefined);
    }
    this.#inProgress += 1;
    const store = new StreamReceiver(channel);
    const loading = this.#load(store, head);
    this.#running.add(loading);
    try {
      return this.#note(head.stream, await loading);
    } catch (error) {
      if (store.wasGivenUp) return undefined;
      throw error;
    } finally {
      this.#running.delete(loading);
      this.#inProgress -= 1;
    }
  }

  async #load(store: StreamReceiver, head: StreamHead): Promise<string> {
    const { digest, signal, migration } = this.#options;
    const checkpoint = await openCheckpoint(store, { mode: 'load', digest, signal });
    try {
      const { parent, epoch } = checkpoint.header;
      if (parent?.uuid !== migration || epoch !== BigInt(head.round + 1)) {
        throw wrong('a stream of another migration or round');
      }
      const take = { memory: this.#takePages, state: this.#takeState, missing: this.#takeMissing }[head.kind];
      const root = await take.call(this, checkpoint, head);
      await store.finish();
      return root;
    } finally {
      await checkpoint.close();
    }
  }

  /** Resolves when no decoder touches the memory. REQUIRES: the connections of those that run are gone, or will come to their end. */
  async idle(): Promise<void> {
    await Promise.allSettled([...this.#running]);
  }

  /** All that `end` speaks of is here: sets the state. Rejects as `take`, and with what the machine says. */
  async complete(end: EndMessage): Promise<void> {
    const hash = createHash('sha256');
    for (let stream = end.first; stream < end.first + end.count; stream += 1) {
      const root = this.#roots.get(stream);
      if (root === undefined) throw wrong(`the end before stream ${stream}`);
      hash.update(root);
    }
    if (!hash.digest().equals(end.root)) throw wrong('an end with another root digest');
    const apply = this.#apply;
    if (apply === undefined || apply.stream < end.first || this.#inProgress > 0) {
      throw wrong('the end before the state');
    }
    const missing = end.postcopy ? this.#missing : undefined;
    if (end.postcopy && (missing === undefined || missing.stream < end.first)) {
      throw wrong('the end before the pages that are missing');
    }
    for (const set of apply.states) await set();
    const { memory } = this.#vm;
    if (missing !== undefined && memory !== undefined) {
      this.arriving = await ArrivingPages.start(memory, missing.pages);
    }
    await this.#vm.endLoad();
    // Setting the state may have touched a page that is missing.
    this.arriving?.check();
  }

  /** What was received is no guest. */
  async drop(error: Error): Promise<void> {
    if (!this.#touched) return;
    this.arriving?.fail(error);
    await this.arriving?.close();
    try {
      if (this.#vm.failure === undefined) this.#vm.beginLoad();
      await this.#vm.endLoad(error);
    } catch {
      // It refuses to run already.
    }
  }

  async #takePages(checkpoint: LoadCheckpoint): Promise<string> {
    const { memory } = this.#vm;
    if (memory === undefined) throw wrong('pages for a machine without memory');
    const decoder = new PageDecoder(memory, {
      threads: Math.max(1, Math.floor((this.#options.threads ?? availableParallelism()) / this.lanes)),
      chain: new ChainLoad(memory.pageCount),
      arriving: this.arriving,
      deltas: this.arriving === undefined,
    });
    await checkpoint.loadMemory(memoryContext, decoder);
    return (await checkpoint.finish()).root;
  }

  async #takeMissing(checkpoint: LoadCheckpoint, head: StreamHead): Promise<string> {
    const pages = new PageSet(this.#vm.memory?.pageCount ?? 1);
    const context = await checkpoint.openContext(missingContext);
    const byteLength = 8 * Math.ceil(pages.pageCount / 64);
    pages.mergeBits(await context.load(missingTag, { type: 'bytes', byteLength }));
    await context.close();
    const { root } = await checkpoint.finish();
    this.#missing = { stream: head.stream, pages };
    return root;
  }

  async #takeState(checkpoint: LoadCheckpoint, head: StreamHead): Promise<string> {
    checkHeader(await loadHeader(checkpoint), this.#vm, [], this.#options.ignore);
    const states = await readStates(checkpoint, planOf(this.#vm, []));
    const { root } = await checkpoint.finish();
    this.#apply = { stream: head.stream, states };
    return root;
  }

  #note(stream: number, root: string): Uint8Array {
    const bytes = Buffer.from(root, 'hex');
    this.#roots.set(stream, bytes);
    this.streams += 1;
    this.#options.onStream(this.streams);
    if (this.arriving !== undefined) this.#options.onPages?.(this.arriving.left);
    for (const [oldest] of this.#roots) {
      if (this.#roots.size <= rememberedMax) break;
      this.#roots.delete(oldest);
    }
    return bytes;
  }
}
