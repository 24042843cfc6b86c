/**
 * The lazy half of `loadVm`: memory that arrives while the guest runs.
 *
 * Before anything of the machine is touched: footer, END, index, region table and block indexes were read and verified. Page
 * blocks are verified when they are needed, the root digest when all of them are there.
 */
import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { CheckpointError, withDetails } from '../errors/index.ts';
import type { Digest64 } from '../format/digest.ts';
import { hexOf } from '../format/uuid.ts';
import { blockPagesMax } from '../limits.ts';
import { checkpointDigest } from '../memory/digest.ts';
import { type GuestMemory, LazyPages, type RequestedBytes } from '../memory/index.ts';
import type { Store, StoreReader } from '../store/index.ts';
import { checkpointFolder, filePath, parseStoreUrl } from '../store/url.ts';
import {
  fillThreadsDefault,
  type LazyLoad,
  type LazySettings,
  modeOf,
  type ResidentReport,
} from './lazy-options.ts';
import { type NotLazy, type OpenedLayer, openLayer } from './open-layer.ts';
import type { ChainMember } from './parent.ts';
import type { VirtualMachine } from './virtual-machine.ts';
import { encodeWorkingSet, readWorkingSet, writeWorkingSet } from './working-set.ts';

/** How long a machine has to see that it is to pause before threads that wait for damaged pages go on. */
const pauseGraceMs = 20;

/** Of a store that JavaScript reads each has one request under way: several, because an answer may take long. */
const askingFillThreads = 4;

/** Each member keeps a descriptor open until all is there. */
const lazyDepthMax = 256;

/** A lazy load that is prepared: everything about it that can be checked was. */
export class PreparedLazyLoad {
  readonly #vm: VirtualMachine;
  readonly #pages: LazyPages;
  readonly #opened: OpenedLayer;
  readonly #options: LazySettings;
  readonly #store: Store;
  readonly #uuid: string;
  readonly #digest: Digest64;
  readonly replay: LazyLoad['replay'];

  constructor(
    vm: VirtualMachine,
    pages: LazyPages,
    opened: OpenedLayer,
    source: { store: Store; uuid: string; digest: Digest64; options: LazySettings },
    replay: LazyLoad['replay'],
  ) {
    this.#vm = vm;
    this.#pages = pages;
    this.#opened = opened;
    this.#store = source.store;
    this.#uuid = source.uuid;
    this.#digest = source.digest;
    this.#options = source.options;
    this.replay = replay;
  }

  /** What END says; the root digest is verified when all is there. */
  get summary(): { readonly root: string; readonly bytes: number } {
    return { root: hexOf(this.#opened.map.end.root), bytes: this.#opened.map.bytes };
  }

  /** Drops the machine's memory; pages come from now on. */
  start(): Promise<void> {
    return this.#pages.start();
  }

  /** The load failed before the guest could run. */
  async cancel(error: unknown): Promise<void> {
    this.#pages.fail(error);
    if (!this.#pages.isLoading) await this.#pages.close();
    else this.#pages.abort();
    this.#pages.release();
  }

  /** The machine is loaded but for its memory: from now on the guest may run. */
  run(begin: number, signal: AbortSignal | undefined): LazyLoad {
    const abort = (): void => this.#pages.abort();
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted) abort();
    const resident = this.#finish(begin).finally(() => signal?.removeEventListener('abort', abort));
    // Who does not ask learns of a failure from the machine.
    resident.catch(() => undefined);
    return {
      resident,
      replay: this.replay,
      counts: () => this.#pages.counts(),
      saveWorkingSet: () => this.#saveWorkingSet(),
    };
  }

  async #finish(begin: number): Promise<ResidentReport> {
    try {
      const digests = await this.#pages.resident();
      const root = createHash('sha256').update(this.#opened.headerBytes).update(digests).digest('hex');
      if (root !== this.summary.root) {
        throw new CheckpointError('CHKPT_ROOT_DIGEST', 'the root digest is not that of the frames', {
          details: { expected: this.summary.root, actual: root },
        });
      }
      if (this.#isRecording) await this.#saveWorkingSet();
      return { ...this.#pages.counts(), root, elapsedMs: performance.now() - begin };
    } catch (error) {
      if (error instanceof CheckpointError && error.code === 'CHKPT_CLOSED') throw error;
      const failure = withDetails(error, { store: this.#store.url });
      await stopMachine(
        this.#vm,
        this.#pages,
        failure instanceof Error ? failure : new Error(String(failure)),
      );
      throw failure;
    }
  }

  get #isRecording(): boolean {
    const { workingSet } = this.#options;
    return workingSet !== undefined && modeOf(workingSet) === 'record';
  }

  async #saveWorkingSet(): Promise<void> {
    if (!this.#isRecording) throw new TypeError('the working set is not recorded');
    const path = workingSetPath(this.#store, this.#options);
    await writeWorkingSet(path, encodeWorkingSet(this.#uuid, this.#pages.workingSet(), this.#digest));
  }
}

/** The guest never runs on without a page: it waits for it, and is stopped while it does. */
export async function stopMachine(
  vm: VirtualMachine,
  pages: { fail(error: unknown): void; release(): void },
  failure: Error,
): Promise<void> {
  pages.fail(failure);
  await Promise.resolve(vm.endLoad(failure)).catch(() => undefined);
  const paused = vm.pause().catch(() => undefined);
  await Promise.race([paused, delay(pauseGraceMs)]);
  pages.release();
  await paused;
}

/**
 * Prepares a lazy load of the checkpoint `uuid` in `store`, or says why it must be an eager one. The machine is untouched.
 * Rejects with errors of kind `damaged` and `io`, and `CHKPT_VM_REGIONS`.
 */
export async function prepareLazyLoad(
  vm: VirtualMachine,
  memory: GuestMemory | undefined,
  store: Store,
  uuid: string,
  options: LazySettings,
  signal: AbortSignal | undefined,
  ancestors: readonly ChainMember[],
): Promise<PreparedLazyLoad | NotLazy> {
  if (memory === undefined) return { reason: 'no memory is loaded' };
  if (memory.missingPages?.isLoading) return { reason: 'an earlier lazy load of this machine goes on' };
  // Of an earlier one that failed: the machine must not run anyway.
  await memory.replaceMissingPages(undefined);
  const digest = await checkpointDigest();
  if (ancestors.length > lazyDepthMax) return { reason: `more than ${lazyDepthMax} parents` };
  const members = [{ store, uuid }, ...ancestors];
  const readers: StoreReader[] = [];
  const opened: OpenedLayer[] = [];
  let requests: readonly RequestedBytes[] = [];
  let pages: LazyPages | undefined;
  try {
    for (const member of members) {
      const reader = await member.store.openReader({ signal });
      readers.push(reader);
      const layer = await openLayer(reader, memory, member.store, member.uuid, digest, { mayAsk: true });
      if ('reason' in layer) {
        return opened.length === 0 ? layer : { reason: `a parent, ${member.uuid}: ${layer.reason}` };
      }
      opened.push(layer);
      if (layer.requests === undefined) continue;
      readers.pop();
      requests = [...requests, layer.requests];
    }
    const { blocks, reason } = await readReplay(store, uuid, memory, options, digest);
    const { fillBytesPerSecond, fillDelayMs, damage } = options;
    const fillThreads =
      options.fillThreads ?? (requests.length === 0 ? fillThreadsDefault : askingFillThreads);
    pages = await LazyPages.prepare(memory, {
      layers: opened.map(({ layer }) => layer),
      requests,
      fillThreads,
      fillBytesPerSecond,
      fillDelayMs,
      replay: blocks,
      poison: damage === 'poison',
    });
    const replay = { blocks: blocks.length / 4, reason };
    return new PreparedLazyLoad(
      vm,
      pages,
      opened[0] as OpenedLayer,
      { store, uuid, digest, options },
      replay,
    );
  } catch (error) {
    if (error instanceof CheckpointError) {
      const isRefusal = error.code === 'CHKPT_UNSUPPORTED' || error.code === 'CHKPT_PERMISSION';
      if (isRefusal) return { reason: error.message };
    }
    throw withDetails(error, { store: store.url });
  } finally {
    for (const reader of readers) await reader.close();
    // Of a load that is prepared it closes them.
    if (pages === undefined) for (const one of requests) await one.close();
  }
}

async function readReplay(
  store: Store,
  uuid: string,
  memory: GuestMemory,
  options: LazySettings,
  digest: Digest64,
): Promise<{ blocks: Uint8Array; reason?: string | undefined }> {
  const none = new Uint8Array(0);
  if (options.workingSet === undefined) return { blocks: none };
  const path = workingSetPath(store, options);
  if (modeOf(options.workingSet) === 'record') return { blocks: none };
  const blockCountMax = Math.ceil(memory.pageCount / blockPagesMax) + memory.regions.length;
  try {
    return { blocks: await readWorkingSet(path, uuid, blockCountMax, digest) };
  } catch (error) {
    return { blocks: none, reason: error instanceof Error ? error.message : String(error) };
  }
}

/** Throws `TypeError` when the store has no place beside it. */
function workingSetPath(store: Store, { workingSet }: LazySettings): string {
  if (typeof workingSet === 'object') return workingSet.path;
  const { scheme, rest } = parseStoreUrl(store.url);
  if (scheme === 'file') return `${filePath(rest, store.url)}.workingset`;
  const folder = checkpointFolder({ scheme, rest }, store.url);
  if (folder !== undefined) return `${folder}.workingset`;
  throw new TypeError(`a working set of ${scheme}: needs a path`);
}
