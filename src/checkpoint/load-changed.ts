/**
 * Loads that write only what differs: the pages that the machine's tracker has seen written since the checkpoint that it held,
 * and those that checkpoints between that one and the wanted one hold themselves. Where nobody knows, all pages are compared.
 */
import { withDetails } from '../errors/index.ts';
import { hexOf } from '../format/uuid.ts';
import { checkpointDigest } from '../memory/digest.ts';
import {
  BlockLayer,
  type FetchCounts,
  type FetchOptions,
  fetchPages,
  type GuestMemory,
  PageSet,
  type TrackerKind,
} from '../memory/index.ts';
import { ChangeLog } from './change-log.ts';
import { type NotLazy, openLayer } from './open-layer.ts';
import { type ChainMember, type ChainOptions, describeMember, followChain, standsFor } from './parent.ts';
import type { VirtualMachine } from './virtual-machine.ts';

/** What a load that writes only what differs did. */
export interface ChangedReport {
  /** Pages that might differ and were looked at. */
  readonly pages: number;
  /** Of them, pages that differed and were written. */
  readonly pagesWritten: number;
  /** Who said which pages might differ, and why nobody else; `compare`: all were looked at. */
  readonly tracker: { readonly kind: TrackerKind | 'compare'; readonly reason: string };
}

export type ChangedOutcome =
  | ({ readonly active: true } & ChangedReport)
  /** Everything was loaded: this was not asked for, or not possible. */
  | { readonly active: false; readonly reason: string };

/** The checkpoints that a ring has open, by UUID; a load that is given none opens what it needs. */
export type OpenLayers = Map<string, OpenMember>;

interface OpenMember {
  readonly blocks: BlockLayer;
  readonly root: string;
  readonly bytes: number;
}

/** Pages that may differ; undefined: any. */
interface Suspects {
  readonly pages: PageSet | undefined;
  readonly tracker: ChangedReport['tracker'];
}

export class ChangedLoad {
  readonly #memory: GuestMemory;
  readonly #log: ChangeLog | undefined;
  readonly #target: ChainMember;
  readonly #layers: readonly OpenMember[];
  /** What lies between the checkpoint that memory held and the target, or why that is not known. */
  readonly #between: readonly OpenMember[] | string;
  /** Undefined: all pages were compared. */
  #suspected: PageSet | undefined;

  private constructor(
    memory: GuestMemory,
    log: ChangeLog | undefined,
    target: ChainMember,
    layers: readonly OpenMember[],
    between: readonly OpenMember[] | string,
  ) {
    this.#memory = memory;
    this.#log = log;
    this.#target = target;
    this.#layers = layers;
    this.#between = between;
  }

  /**
   * Looks at the checkpoint that `chain` begins with and its parents, and at what lies between it and what the machine held. The
   * machine is untouched. Rejects with errors of kind `damaged` and `io`, and `CHKPT_VM_REGIONS`.
   */
  static async prepare(
    vm: Pick<VirtualMachine, 'dirtyTracker'>,
    memory: GuestMemory | undefined,
    chain: readonly [ChainMember, ...ChainMember[]],
    options: ChainOptions & { readonly layers?: OpenLayers | undefined },
  ): Promise<ChangedLoad | NotLazy> {
    if (memory === undefined) return { reason: 'no memory is loaded' };
    if (memory.missingPages?.isLoading) return { reason: 'an earlier lazy load of this machine goes on' };
    // What it has in memory of scrubbed pages is not what the checkpoint says, and no tracker knows.
    if (chain.some(({ scrubbed }) => scrubbed.length > 0))
      return { reason: 'pages were scrubbed in the checkpoint' };
    const known = options.layers ?? new Map();
    const layers = await openAll(chain, memory, known, options.signal);
    if ('reason' in layers) return layers;
    const log = vm.dirtyTracker === undefined ? undefined : ChangeLog.of(vm.dirtyTracker);
    const members =
      log === undefined ? 'the machine has no dirty tracker' : await between(log, chain, options);
    if (typeof members === 'string') return new ChangedLoad(memory, log, chain[0], layers, members);
    // One that is damaged is not needed for the load: it only knows what it has changed.
    const path = await openAll(members, memory, known, options.signal).catch((error: Error) => {
      options.signal?.throwIfAborted();
      return { reason: error.message };
    });
    return new ChangedLoad(memory, log, chain[0], layers, 'reason' in path ? path.reason : path);
  }

  /** What END says; blocks are verified one by one. */
  get summary(): { readonly root: string; readonly bytes: number } {
    return this.#layers[0] as OpenMember;
  }

  /** Writes what differs. The machine stands still. Rejects as `fetchPages`. */
  async run(options: FetchOptions): Promise<ChangedReport> {
    await this.#memory.replaceMissingPages(undefined);
    const { pages, tracker } = await this.#suspects();
    this.#suspected = pages;
    const blocks = this.#layers.map((one) => one.blocks);
    const counts: FetchCounts = await fetchPages(this.#memory, blocks, pages, options);
    await this.#memory.checkImage();
    return { pages: counts.pages, pagesWritten: counts.written, tracker };
  }

  /** The machine is the checkpoint's now: its tracker counts from here on. */
  async commit(): Promise<void> {
    const { uuid, store } = this.#target;
    const name = { uuid, root: this.summary.root, store };
    const pages = this.#suspected;
    await (pages === undefined ? this.#log?.loaded(name) : this.#log?.broughtBack(name, pages));
  }

  async #suspects(): Promise<Suspects> {
    const log = this.#log;
    if (typeof this.#between === 'string' || log === undefined) {
      return { pages: undefined, tracker: { kind: 'compare', reason: String(this.#between) } };
    }
    const changed = await log.look().catch((error: Error) => error);
    if (!(changed instanceof PageSet)) {
      const reason = changed?.message ?? 'its dirty tracker has lost count';
      return { pages: undefined, tracker: { kind: 'compare', reason } };
    }
    const pages = new PageSet(this.#memory.pageCount);
    pages.merge(changed);
    for (const { blocks } of this.#between) blocks.markHeld(pages);
    const { kind, reason } = log.tracker;
    return { pages, tracker: { kind, reason } };
  }
}

/** The members that hold what may differ between the checkpoint that the log counts from and the first one of `chain`. */
async function between(
  { baseline }: ChangeLog,
  chain: readonly ChainMember[],
  options: ChainOptions,
): Promise<readonly ChainMember[] | string> {
  if (baseline === undefined) return 'its dirty tracker has not watched since any checkpoint';
  const [target] = chain;
  if (target !== undefined && standsFor(target, baseline)) return [];
  const held = await describeMember(baseline.store, options).catch((error: Error) => error);
  if (held instanceof Error) {
    options.signal?.throwIfAborted();
    return `the checkpoint that it held cannot be opened: ${held.message}`;
  }
  if (!standsFor(held, baseline)) return 'another checkpoint is where the one was that it held';
  const { ancestors } = await followChain(held, options);
  const path: ChainMember[] = [];
  for (const member of [held, ...ancestors]) {
    const meeting = chain.findIndex((one) => standsFor(one, member) || standsFor(member, one));
    if (meeting >= 0) return [...path, ...chain.slice(0, meeting)];
    path.push(member);
  }
  return 'the checkpoint that it held has no ancestor in common with this one';
}

/** Opens those that are not open yet. */
async function openAll(
  members: readonly ChainMember[],
  memory: GuestMemory,
  known: OpenLayers,
  signal: AbortSignal | undefined,
): Promise<readonly OpenMember[] | NotLazy> {
  const opened: OpenMember[] = [];
  for (const [index, member] of members.entries()) {
    const one = known.get(member.uuid) ?? (await openMember(member, memory, signal));
    if ('reason' in one) {
      return index === 0 ? one : { reason: `a parent, ${member.uuid}: ${one.reason}` };
    }
    known.set(member.uuid, one);
    opened.push(one);
  }
  return opened;
}

async function openMember(
  { store, uuid, root }: ChainMember,
  memory: GuestMemory,
  signal: AbortSignal | undefined,
): Promise<OpenMember | NotLazy> {
  const reader = await store.openReader({ signal });
  try {
    const opened = await openLayer(reader, memory, store, uuid, await checkpointDigest());
    if ('reason' in opened) return opened;
    const { end, bytes } = opened.map;
    if (hexOf(end.root) !== root) return { reason: 'the checkpoint was replaced while it was opened' };
    return { blocks: await BlockLayer.open(memory, opened.layer), root, bytes };
  } catch (error) {
    throw withDetails(error, { store: store.url });
  } finally {
    await reader.close();
  }
}
