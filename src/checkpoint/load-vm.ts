/**
 * Loads a whole virtual machine.
 *
 * Nothing of the machine is touched before header, device table and every device and core state were read and checked. Memory is
 * loaded in place; devices and cores are set only after the whole stream was verified. From the first byte of memory on, a
 * failure leaves a machine that refuses to run.
 */
import { tracingChannel } from 'node:diagnostics_channel';
import { openCheckpoint as openInStore } from '../context/checkpoint.ts';
import type { LoadCheckpoint } from '../context/load-checkpoint.ts';
import { checkAborted } from '../context/store-call.ts';
import type { StreamSummary } from '../context/stream-reader.ts';
import { CheckpointError, withDetails } from '../errors/index.ts';
import { pageBytes } from '../limits.ts';
import { checkpointDigest } from '../memory/digest.ts';
import { type GuestMemory, PageDecoder, type PageSet } from '../memory/index.ts';
import type { Store } from '../store/index.ts';
import { ChangeLog, type StoredName } from './change-log.ts';
import {
  checkIdentityOptions,
  type IdentityOptions,
  type IdentityReport,
  type MachineIdentity,
  prepareIdentity,
} from './identity.ts';
import { checkLazyOptions, type LazyOptions, type LazyOutcome, type LazySettings } from './lazy-options.ts';
import { chainOf, loadChainMemory } from './load-chain.ts';
import { ChangedLoad, type ChangedOutcome, type OpenLayers } from './load-changed.ts';
import { PreparedCloneLoad } from './load-clone.ts';
import { PreparedLazyLoad, prepareLazyLoad } from './load-lazy.ts';
import { loadDescription, readStates } from './machine-states.ts';
import { type KeyOptions, toStore } from './open.ts';
import { Operation, type Progress } from './operation.ts';
import { type ChainMember, describeMember } from './parent.ts';
import { abortedOr } from './save-vm.ts';
import { pagesIn, type ScrubbedRange } from './scrub.ts';
import { inTurn } from './turns.ts';
import type { SkipPart, VirtualMachine } from './virtual-machine.ts';
import { checkHeader, type IgnoredMismatch, type VmHeader } from './vm-header.ts';
import { planOf } from './vm-plan.ts';

export interface LoadVmOptions extends IdentityOptions, KeyOptions {
  /** Parts not to load. A part that was skipped when the checkpoint was saved must be skipped here too. */
  readonly skip?: readonly SkipPart[] | undefined;
  /** Differences to accept. */
  readonly ignore?: readonly IgnoredMismatch[] | undefined;
  /** Of an incremental checkpoint: where its parents are, if not where they were when it was saved. */
  readonly parents?: readonly (string | Store)[] | undefined;
  /** Worker threads, 1 to 64; default: number of processors. */
  readonly threads?: number | undefined;
  /** Cancels at the next block of each thread; when memory was already touched the machine refuses to run. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Resolves when the guest can run, with its memory still in the checkpoint: pages come when they are touched. Where that is
   * not possible everything is loaded as usual and `LoadReport.lazy` says why. See docs/lazy-load.md.
   */
  readonly lazy?: boolean | LazyOptions | undefined;
  /**
   * Writes only the pages that differ from what the machine holds; its `dirtyTracker` and the checkpoints in between say which may.
   * Blocks are verified one by one, not the checkpoint as a whole. Where that is not possible everything is loaded as usual and
   * `LoadReport.changed` says why. Not with `lazy`. See docs/ring.md.
   */
  readonly onlyChanged?: boolean | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/** What a load did. */
export interface LoadReport extends IdentityReport {
  readonly url: string;
  readonly uuid: string;
  /**
   * Root digest, hexadecimal, verified; of a lazy load it is what END says, verified when all is resident; with `onlyChanged` it
   * is what END says.
   */
  readonly root: string;
  readonly header: VmHeader;
  /** What its memory does not have of the machine's that was saved. */
  readonly scrubbed: readonly ScrubbedRange[];
  readonly memoryBytes: number;
  /** Bytes of the checkpoint, without its parents. */
  readonly checkpointBytes: number;
  /** UUIDs of its parents, nearest first; empty for a checkpoint that stands alone. */
  readonly parents: readonly string[];
  /** Wall time, milliseconds. */
  readonly elapsedMs: number;
  readonly lazy: LazyOutcome;
  readonly changed: ChangedOutcome;
}

const channel = tracingChannel('chkpt:load');

/**
 * Loads a checkpoint into `vm`, which must be paused and stays paused.
 *
 * An incremental checkpoint is loaded with its parents, newest first, each page once; each is verified as a whole.
 *
 * Rejects with `CHKPT_VM_RUNNING`, `CHKPT_KEY`, `CHKPT_PARENT_MISSING`, an error of kind `mismatch` (the machine is unchanged), or any error of kind `damaged`
 * or `io`; with `CHKPT_CONTINUED` or `CHKPT_UNSUPPORTED` for what `as` asks for (docs/clones.md); and with `CHKPT_VM_FAILED` when an earlier load left a mixture that this one, with its `skip`, would not replace.
 */
export function loadVm(
  vm: VirtualMachine,
  source: string | Store,
  options: LoadVmOptions = {},
): Operation<LoadReport> {
  const url = typeof source === 'string' ? source : source.url;
  return new Operation<LoadReport>((report) => {
    const work = (): Promise<LoadReport> =>
      inTurn(vm, options.signal, () => load(vm, toStore(source, options.key), options, report));
    return channel.tracePromise(work, { url, vm: vm.id });
  }, options.onProgress);
}

/** For rings: `loadVm` with `onlyChanged`, and checkpoints that are open already. */
export function loadChanged(
  vm: VirtualMachine,
  store: Store,
  options: Omit<LoadVmOptions, 'lazy' | 'onlyChanged' | 'onProgress'>,
  layers: OpenLayers,
): Promise<LoadReport> {
  const work = (): Promise<LoadReport> =>
    inTurn(vm, options.signal, () =>
      load(vm, store, { ...options, onlyChanged: true }, () => undefined, layers),
    );
  return channel.tracePromise(work, { url: store.url, vm: vm.id });
}

type Report = (progress: Omit<Progress, 'elapsedMs'>) => void;

async function load(
  vm: VirtualMachine,
  store: Store,
  options: LoadVmOptions,
  report: Report,
  layers?: OpenLayers,
): Promise<LoadReport> {
  const begin = performance.now();
  const { skip = [], signal } = options;
  checkReady(vm, skip);
  const plan = planOf(vm, skip);
  const lazyOptions = checkLazyOptions(options.lazy);
  checkIdentityOptions(options);
  if (lazyOptions !== undefined && options.onlyChanged === true) {
    throw new TypeError('lazy or onlyChanged, not both');
  }
  const checkpoint = await openInStore(store, {
    mode: 'load',
    digest: await checkpointDigest(),
    signal,
    skipMemory: new PageDecoder(undefined, { threads: options.threads }),
  });
  const memoryBytes = plan.hasMemory ? Number(vm.memory?.byteLength ?? 0n) : 0;
  let touched = false;
  let identity: MachineIdentity | undefined;
  let way: PreparedWay | undefined;
  try {
    report({ phase: 'state', memoryBytesDone: 0, memoryBytes });
    const { header, scrubbed } = await loadDescription(checkpoint);
    checkHeader(header, vm, skip, options.ignore ?? []);
    const apply = await readStates(checkpoint, plan);
    // Before anything of the machine is touched.
    const members = plan.hasMemory ? await chainOf(checkpoint, store, options) : [];
    identity = await prepareIdentity(vm, store, checkpoint.uuid, options);
    checkAborted(signal, store.url);
    const memory = plan.hasMemory ? vm.memory : undefined;
    way = await prepareWay(vm, {
      memory,
      store,
      uuid: checkpoint.uuid,
      members,
      lazyOptions,
      options,
      layers,
      leftOut: leftOutOf(scrubbed, memory),
    });
    vm.beginLoad();
    touched = true;
    const onPages = (pages: number): void =>
      report({ phase: 'memory', memoryBytesDone: pages * pageBytes, memoryBytes });
    const told = await way.changed?.run({ threads: options.threads, signal, onPages });
    await way.lazy?.start();
    const summary =
      (way.changed ?? way.lazy)?.summary ??
      (await loadMemory(checkpoint, members, memory, options, onPages, leftOutOf(scrubbed, memory)));
    for (const set of apply) await set();
    const identified = await identity.take();
    await vm.endLoad();
    // From here on it may run.
    identity = undefined;
    if (plan.hasMemory) await startTracking(vm, way, { uuid: checkpoint.uuid, root: summary.root, store });
    report({ phase: 'commit', memoryBytesDone: memoryBytes, memoryBytes });
    return {
      url: store.url,
      uuid: checkpoint.uuid,
      root: summary.root,
      header,
      scrubbed,
      memoryBytes,
      checkpointBytes: summary.bytes,
      parents: members.slice(1).map(({ uuid }) => uuid),
      elapsedMs: performance.now() - begin,
      ...identified,
      lazy: way.lazy === undefined ? way.notLazy : { active: true, load: way.lazy.run(begin, signal) },
      changed: told === undefined ? way.notChanged : { active: true, ...told },
    };
  } catch (error) {
    const failure = withDetails(abortedOr(error, signal), { store: store.url });
    await way?.lazy?.cancel(failure);
    if (touched && vm.dirtyTracker !== undefined) ChangeLog.of(vm.dirtyTracker).reset();
    if (touched) await vm.endLoad(failure instanceof Error ? failure : new Error(String(failure)));
    await identity?.undo();
    throw failure;
  } finally {
    await checkpoint.close();
  }
}

/** How memory is going to be loaded: neither is everything at once. */
interface PreparedWay {
  readonly lazy?: PreparedLazyLoad | PreparedCloneLoad;
  readonly changed?: ChangedLoad;
  readonly notLazy: Extract<LazyOutcome, { active: false }>;
  readonly notChanged: Extract<ChangedOutcome, { active: false }>;
}

async function prepareWay(
  vm: VirtualMachine,
  source: {
    readonly memory: GuestMemory | undefined;
    readonly store: Store;
    readonly uuid: string;
    readonly members: readonly ChainMember[];
    readonly lazyOptions: LazySettings | undefined;
    readonly options: LoadVmOptions;
    readonly layers: OpenLayers | undefined;
    readonly leftOut: PageSet | undefined;
  },
): Promise<PreparedWay> {
  const { memory, store, uuid, members, lazyOptions, options, layers, leftOut } = source;
  const { signal } = options;
  const notAsked = { active: false, reason: 'not asked for' } as const;
  const neither = { notLazy: notAsked, notChanged: notAsked };
  if (leftOut !== undefined) {
    const fallback = { active: false, reason: 'pages were left out, and stay what they are' } as const;
    return {
      notLazy: lazyOptions === undefined ? notAsked : fallback,
      notChanged: options.onlyChanged === true ? fallback : notAsked,
    };
  }
  if (lazyOptions?.image !== undefined) {
    const lazy = PreparedCloneLoad.prepare(vm, memory, uuid, lazyOptions.image);
    if (lazy instanceof PreparedCloneLoad) return { ...neither, lazy };
    return { ...neither, notLazy: { active: false, reason: lazy.reason } };
  }
  if (lazyOptions !== undefined) {
    const lazy = await prepareLazyLoad(vm, memory, store, uuid, lazyOptions, signal, members.slice(1));
    if (lazy instanceof PreparedLazyLoad) return { ...neither, lazy };
    return { ...neither, notLazy: { active: false, reason: lazy.reason } };
  }
  if (options.onlyChanged !== true) return neither;
  const [first, ...parents] = members;
  const chain = [first ?? (await describeMember(store, { signal })), ...parents] as const;
  const notChanged = { active: false, reason: 'the checkpoint was replaced while it was loaded' } as const;
  if (chain[0].uuid !== uuid) return { ...neither, notChanged };
  const changed = await ChangedLoad.prepare(vm, memory, chain, { ...options, layers });
  if (changed instanceof ChangedLoad) return { ...neither, changed };
  return { ...neither, notChanged: { active: false, reason: changed.reason } };
}

/** The machine is the checkpoint's now: its tracker counts from here on. */
async function startTracking(vm: VirtualMachine, way: PreparedWay, loaded: StoredName): Promise<void> {
  if (way.changed !== undefined) return await way.changed.commit();
  if (vm.dirtyTracker === undefined) return;
  const log = ChangeLog.of(vm.dirtyTracker);
  if (way.lazy !== undefined) log.reset();
  else await log.loaded(loaded);
}

/** Pages that stay what they are. */
function leftOutOf(scrubbed: readonly ScrubbedRange[], memory: GuestMemory | undefined): PageSet | undefined {
  return pagesIn(
    scrubbed.filter(({ how }) => how === 'left-out'),
    memory?.regions ?? [],
  );
}

/** A load that leaves parts out cannot make a machine whole that an earlier one left as a mixture. */
function checkReady(vm: VirtualMachine, skip: readonly SkipPart[]): void {
  if (vm.running) throw new CheckpointError('CHKPT_VM_RUNNING', 'the machine runs');
  if (vm.failure === undefined || skip.length === 0) return;
  const what = `an earlier load failed, and one that skips ${skip.join()} would not replace everything`;
  throw new CheckpointError('CHKPT_VM_FAILED', what, { cause: vm.failure });
}

/** Memory, where there is any to load, and the rest of the stream. */
async function loadMemory(
  checkpoint: LoadCheckpoint,
  members: readonly ChainMember[],
  memory: GuestMemory | undefined,
  { threads, signal }: LoadVmOptions,
  onPages: (pages: number) => void,
  leaveAlone: PageSet | undefined,
): Promise<StreamSummary> {
  if (memory === undefined) return await checkpoint.finish();
  // Pages of an earlier load that was not complete do not come any more.
  await memory.replaceMissingPages(undefined);
  await memory.checkImage();
  const summary = await loadChainMemory(checkpoint, members, memory, {
    threads,
    signal,
    onPages,
    leaveAlone,
  });
  await memory.checkImage();
  return summary;
}
