/** The side of a save that knows of parents: what the parent is, which pages may differ from it, and who says so. */
import { CheckpointError } from '../errors/index.ts';
import type { ParentReference } from '../format/stream-header.ts';
import { pageBytes } from '../limits.ts';
import {
  describeRegions,
  type EncodeOptions,
  type GuestMemory,
  PageDigests,
  type PageSet,
  type TrackerKind,
} from '../memory/index.ts';
import { type Store, TeeStore } from '../store/index.ts';
import { ChangeLog } from './change-log.ts';
import { digestsOfChain } from './load-chain.ts';
import { toStoreBeside } from './open.ts';
import {
  type ChainMember,
  type CheckpointName,
  checkPlace,
  describeMember,
  findAncestors,
  parentLink,
} from './parent.ts';
import { pagesIn } from './scrub.ts';
import type { VirtualMachine } from './virtual-machine.ts';

export interface IncrementOptions {
  /**
   * The checkpoint to build on: only pages that differ from it are stored. It must stay where it is, or be found by who loads.
   * A machine with a `dirtyTracker` that has watched since that checkpoint says what changed; else all pages are compared with
   * digests of the parent's, for which the parent is read.
   */
  readonly parent?: string | Store | undefined;
  /** Where the parent's own parents are, if not where they were. */
  readonly parents?: readonly (string | Store)[] | undefined;
  /**
   * With a `dirtyTracker`: leave out pages that were written and hold what they held. Keeps 16 bytes for each page between
   * saves. Default false.
   */
  readonly skipEqual?: boolean | undefined;
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Who said which pages have changed. */
export interface TrackerReport {
  readonly kind: TrackerKind;
  readonly reason: string;
}

type Changes = Pick<EncodeOptions, 'changed' | 'pageDigests' | 'scrubbed'>;

export class Increment {
  readonly #options: IncrementOptions;
  readonly #memory: GuestMemory | undefined;
  readonly #log: ChangeLog | undefined;
  readonly parent: ChainMember | undefined;
  /** Of the parent, where no tracker knows what has changed since. */
  readonly #digests: PageDigests | undefined;
  #took = false;
  #scrubbed: PageSet | undefined;

  private constructor(
    options: IncrementOptions,
    memory: GuestMemory | undefined,
    log: ChangeLog | undefined,
    parent: ChainMember | undefined,
    digests: PageDigests | undefined,
  ) {
    this.#options = options;
    this.#memory = memory;
    this.#log = log;
    this.parent = parent;
    this.#digests = digests;
  }

  /**
   * Looks at the parent, while the machine still runs. `memory`: undefined when it is not saved. Throws `TypeError` for a parent
   * without memory to save, `CHKPT_PARENT_*`, `CHKPT_VM_REGIONS`, errors of kind `damaged` and of the parent's store.
   */
  static async prepare(
    vm: Pick<VirtualMachine, 'dirtyTracker'>,
    memory: GuestMemory | undefined,
    target: Store,
    options: IncrementOptions,
  ): Promise<Increment> {
    const log =
      memory === undefined || vm.dirtyTracker === undefined ? undefined : ChangeLog.of(vm.dirtyTracker);
    if (options.parent === undefined) return new Increment(options, memory, log, undefined, undefined);
    if (memory === undefined) throw new TypeError('a checkpoint without memory has no parent');
    const parent = await describeMember(toStoreBeside(target, options.parent), options);
    checkPlace(parent, target);
    checkRegions(parent, memory);
    const known = log !== undefined && namesOf(parent).some((name) => log.knowsSince(name));
    const digests = known ? undefined : await digestsOf(parent, target, options);
    return new Increment(options, memory, log, parent, digests);
  }

  /** For the stream header. */
  get reference(): { readonly parent?: ParentReference; readonly epoch?: bigint } {
    if (this.parent === undefined) return {};
    const { uuid, root, epoch } = this.parent;
    return { parent: { uuid, root }, epoch: epoch + 1n };
  }

  /** For the `header` context of the checkpoint at `url`. */
  link(url: string): string | undefined {
    return this.parent === undefined ? undefined : parentLink(this.parent.store.url, url);
  }

  /** Undefined without parent. */
  get tracker(): TrackerReport | undefined {
    if (this.parent === undefined) return undefined;
    if (this.#digests === undefined && this.#log !== undefined) {
      const { kind, reason } = this.#log.tracker;
      return { kind, reason };
    }
    const reason =
      this.#log === undefined
        ? 'the machine has no dirty tracker'
        : 'its dirty tracker has not watched since the parent';
    return { kind: 'digest', reason };
  }

  /** While the machine runs: `take` is faster then. Of a tracker that reads all memory it would not be. */
  async lookAhead(): Promise<void> {
    if (this.#log?.tracker.kind === 'write-protect') await this.#log.lookAhead();
  }

  /** What to store. The machine stands still. Then `commit` or `rollback`. `scrubbed`: pages that are stored as zeros. */
  async take(scrubbed?: PageSet): Promise<Changes> {
    this.#took = true;
    this.#scrubbed = scrubbed;
    const changes = await this.#take();
    return scrubbed === undefined ? changes : { ...changes, scrubbed };
  }

  async #take(): Promise<Changes> {
    const changed = await this.#log?.take();
    // What the parent does not have of the machine's it cannot be asked for, whether it was written since or not.
    const missing = this.parent && pagesIn(this.parent.scrubbed, this.parent.regions);
    if (missing !== undefined) changed?.merge(missing);
    const log = this.#log;
    if (this.#digests !== undefined) {
      if (log !== undefined) log.digests = this.#options.skipEqual ? this.#digests : undefined;
      return { pageDigests: this.#digests };
    }
    if (log === undefined || this.#memory === undefined) return {};
    if (this.#options.skipEqual !== true) log.digests = undefined;
    else if (this.parent === undefined || log.digests === undefined) log.digests = emptyDigests(this.#memory);
    return { changed: this.parent === undefined ? undefined : changed, pageDigests: log.digests };
  }

  commit({ uuid, root }: CheckpointName, target: Store): void {
    const store = target instanceof TeeStore ? (target.kept[0] ?? target) : target;
    if (this.#took) this.#log?.commit({ uuid, root, store });
  }

  rollback(): void {
    if (!this.#took) return;
    this.#log?.rollback({ ofOther: this.#digests !== undefined });
    // Noted as zeros, which no checkpoint has.
    if (this.#scrubbed !== undefined) this.#log?.digests?.forget(this.#scrubbed);
  }
}

function emptyDigests(memory: GuestMemory): PageDigests {
  return new PageDigests(Number(memory.byteLength) / pageBytes);
}

function namesOf(member: ChainMember): CheckpointName[] {
  return member.replaces === undefined ? [member] : [member, member.replaces];
}

async function digestsOf(
  parent: ChainMember,
  target: Store,
  options: IncrementOptions,
): Promise<PageDigests> {
  const ancestors = await findAncestors(parent, options);
  for (const ancestor of ancestors) checkPlace(ancestor, target);
  return await digestsOfChain([parent, ...ancestors], options);
}

function checkRegions(parent: ChainMember, memory: GuestMemory): void {
  const { url } = parent.store;
  const expected = describeRegions(memory.regions);
  const actual = describeRegions(parent.regions);
  if (expected === actual) return;
  throw new CheckpointError('CHKPT_VM_REGIONS', 'the parent has another region table than the machine', {
    details: { store: url, expected, actual },
  });
}
