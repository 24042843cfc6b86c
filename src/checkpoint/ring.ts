/**
 * The latest checkpoints of one machine in memory, and the way back to any of them.
 *
 * Each is an increment of the one before, a `mem:` checkpoint like any other: loads, verification and everything else work on its URL.
 * A rollback writes only the pages that differ. What it keeps and costs: docs/ring.md.
 */
import { randomUUID } from 'node:crypto';
import { CheckpointError } from '../errors/index.ts';
import { trackMemory } from '../memory/index.ts';
import { defaultMemoryStoreSpace, type Store } from '../store/index.ts';
import { CallQueue } from '../util/call-queue.ts';
import { keepLast } from './keep-last.ts';
import type { ChangedReport, OpenLayers } from './load-changed.ts';
import { loadChanged } from './load-vm.ts';
import { type SaveReport, type SaveVmOptions, saveVm } from './save-vm.ts';
import type { SkipPart, VirtualMachine } from './virtual-machine.ts';
import { type WatchedVm, watched } from './watched-vm.ts';

/** Most entries of one ring. */
const capacityMax = 4096;

export interface RingOptions extends Pick<SaveVmOptions, 'codec' | 'acceleration' | 'dedup' | 'threads'> {
  /** How many of the latest checkpoints can be gone back to, 1 to 4096. Up to twice as many are kept. */
  readonly capacity: number;
  /** The checkpoints are `mem:<name>/<sequence>`; default: a random name. */
  readonly name?: string | undefined;
  /** Parts of the machine that are neither saved nor brought back. `memory` cannot be. */
  readonly skip?: readonly Exclude<SkipPart, 'memory'>[] | undefined;
}

/** A checkpoint of a ring. */
export interface RingEntry {
  /** Counts the saves of the ring, from 0; never used twice. */
  readonly sequence: number;
  readonly url: string;
  /** Of the checkpoint at `url`; one that has been made whole has another one than when it was saved. */
  readonly uuid: string;
  readonly label?: string | undefined;
  /** Of the save. */
  readonly report: SaveReport;
}

export interface RingSaveOptions extends Pick<SaveVmOptions, 'copyMemory' | 'signal'> {
  /** For people. */
  readonly label?: string | undefined;
}

export interface RollbackReport {
  /** What the machine is now. */
  readonly entry: RingEntry;
  /** What was written; undefined when everything was loaded, and `reason` says why. */
  readonly changed: ChangedReport | undefined;
  readonly reason?: string | undefined;
  /** How long the guest stood still, or the whole took when it did not run, milliseconds. */
  readonly elapsedMs: number;
}

export class CheckpointRing implements AsyncDisposable {
  readonly capacity: number;
  /** The checkpoints are `mem:<name>/<sequence>`. */
  readonly name: string;
  readonly #options: RingOptions;
  readonly #watched: WatchedVm;
  readonly #queue = new CallQueue();
  /** Oldest first; up to twice the capacity. */
  #members: RingEntry[] = [];
  /** Kept open between rollbacks. */
  readonly #layers: OpenLayers = new Map();
  #nextSequence = 0;
  /** Members before it are kept for those that build on them only. */
  #oldestSequence = 0;
  #closed = false;

  private constructor(watchedVm: WatchedVm, options: RingOptions) {
    this.#watched = watchedVm;
    this.#options = options;
    this.capacity = options.capacity;
    this.name = options.name ?? randomUUID();
  }

  /**
   * A ring without entries. A machine that has no `dirtyTracker` is watched by one of the ring's own.
   *
   * Throws `RangeError`, `TypeError` (a machine without memory, or a name that is in use), `CHKPT_NO_MEMORY`, `CHKPT_NO_NATIVE`.
   */
  static async open(vm: VirtualMachine, options: RingOptions): Promise<CheckpointRing> {
    const { capacity, name, skip = [] } = options;
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > capacityMax) {
      throw new RangeError(`capacity must be 1 to ${capacityMax}`);
    }
    if ((skip as readonly SkipPart[]).includes('memory')) throw new TypeError('a ring does not skip memory');
    if (vm.memory === undefined) throw new TypeError('a ring needs a machine with memory');
    if (name === '') throw new TypeError('the name of a ring must not be empty');
    const isUsed = defaultMemoryStoreSpace
      .names()
      .some((one) => name !== undefined && one.startsWith(`${name}/`));
    if (isUsed) throw new TypeError(`there are checkpoints below mem:${name}/`);
    return new CheckpointRing(
      watched(vm, (memory) => trackMemory(memory)),
      options,
    );
  }

  /** Those that can be gone back to, oldest first. */
  get entries(): readonly RingEntry[] {
    return this.#members.filter(({ sequence }) => sequence >= this.#oldestSequence);
  }

  /**
   * Saves the machine as the newest entry; a running guest stands still as for any save. When twice `capacity` checkpoints are kept the
   * older half is folded first: that takes as long as a load and a save of the whole machine, while the guest runs on.
   *
   * Rejects as `saveVm`: then the ring is what it was. Calls run one after the other.
   */
  save(options: RingSaveOptions = {}): Promise<RingEntry> {
    return this.#queue.run(async () => {
      this.#checkOpen();
      await this.#makeRoom(options.signal);
      const sequence = this.#nextSequence;
      this.#nextSequence += 1;
      const { label, signal, copyMemory } = options;
      const { codec, acceleration, dedup, threads, skip } = this.#options;
      const report = await saveVm(this.#watched.vm, this.#storeOf(sequence), {
        ...{ codec, acceleration, dedup, threads, skip, signal, copyMemory },
        parent: this.#newest?.url,
      });
      const { url, uuid } = report;
      const entry: RingEntry = { sequence, url, uuid, label, report };
      this.#members.push(entry);
      const oldest = this.#members.at(-this.capacity)?.sequence ?? 0;
      this.#oldestSequence = Math.max(this.#oldestSequence, oldest);
      return entry;
    });
  }

  /**
   * Makes the machine what it was: `target` is an entry, or how many entries to go back, 0 being the newest. Newer entries are
   * dropped, and the next save builds on that one. A machine that ran runs again.
   *
   * Rejects with `RangeError` when there is no such entry, and as `loadVm`. When nothing was touched the machine runs on as it did;
   * after that it is a mixture, stands still and refuses to run, until a rollback or load succeeds. The entries stay.
   */
  rollback(
    target: RingEntry | number = 0,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<RollbackReport> {
    return this.#queue.run(async () => {
      this.#checkOpen();
      const entry = this.#find(target);
      const { vm } = this.#watched;
      const begin = performance.now();
      const ran = vm.running;
      if (ran) await vm.pause();
      try {
        const { threads, skip } = this.#options;
        const store = this.#storeOf(entry.sequence);
        const { changed } = await loadChanged(vm, store, { ...options, threads, skip }, this.#layers);
        await this.#dropNewer(entry);
        if (ran) await vm.resume();
        const elapsedMs = performance.now() - begin;
        if (!changed.active) return { entry, changed: undefined, reason: changed.reason, elapsedMs };
        const { active: _, ...report } = changed;
        return { entry, changed: report, elapsedMs };
      } catch (error) {
        if (ran && vm.failure === undefined) await vm.resume();
        throw error;
      }
    });
  }

  /** Frees the checkpoints and ends what the ring watches with. The machine stays as it is. Harmless when called twice. */
  close(): Promise<void> {
    return this.#queue.run(async () => {
      if (this.#closed) return;
      this.#closed = true;
      for (const { sequence } of this.#members) await this.#storeOf(sequence).remove?.();
      this.#members = [];
      this.#layers.clear();
      await this.#watched.close();
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  get #newest(): RingEntry | undefined {
    return this.#members.at(-1);
  }

  #storeOf(sequence: number): Store {
    return defaultMemoryStoreSpace.store(`${this.name}/${sequence}`);
  }

  #checkOpen(): void {
    if (this.#closed) throw new CheckpointError('CHKPT_CLOSED', 'the ring is closed');
  }

  #find(target: RingEntry | number): RingEntry {
    const { entries } = this;
    const isEntry = typeof target === 'object';
    const entry = isEntry
      ? entries.find(({ sequence, url }) => sequence === target.sequence && url === target.url)
      : entries[entries.length - 1 - target];
    if (entry !== undefined) return entry;
    const wanted = isEntry ? `entry ${target.sequence}` : `entry ${target} before the newest`;
    throw new RangeError(`no ${wanted} in a ring of ${entries.length}`);
  }

  async #dropNewer(entry: RingEntry): Promise<void> {
    for (let newest = this.#newest; newest !== undefined && newest !== entry; newest = this.#newest) {
      this.#members.pop();
      this.#layers.delete(newest.uuid);
      await this.#storeOf(newest.sequence).remove?.();
    }
  }

  /** Folds what is older than the oldest entry into it, when there is as much of it as there are entries. */
  async #makeRoom(signal: AbortSignal | undefined): Promise<void> {
    const { capacity } = this;
    const newest = this.#newest;
    if (newest === undefined || this.#members.length < 2 * capacity) return;
    const { codec, acceleration, dedup, threads } = this.#options;
    const { kept } = await keepLast(this.#storeOf(newest.sequence), capacity, {
      ...{ codec: codec === 'raw' ? codec : 'lz4', acceleration, dedup, threads, signal },
    });
    const [oldest, ...others] = this.#members.slice(-capacity) as [RingEntry, ...RingEntry[]];
    this.#members = [{ ...oldest, uuid: kept.at(-1) ?? oldest.uuid }, ...others];
    const names = new Set(kept);
    for (const uuid of this.#layers.keys()) if (!names.has(uuid)) this.#layers.delete(uuid);
  }
}
