/**
 * The checkpoint of a guest that goes over to post-copy: as it stood still, durable before COMMIT, so that the loss of either host is the loss
 * of what the guest did since. docs/decisions/0009-safety-checkpoint.md says why it is written then.
 *
 * The guest at the destination is what goes on with it. So it is claimed in its store: who loads it as `continue` is refused, unless by `force`,
 * which is for a person who knows that the guest is lost. Of a migration that came to nothing it is removed.
 */
import { hostname } from 'node:os';
import { Increment, type IncrementOptions } from '../../checkpoint/increment.ts';
import { saveStates } from '../../checkpoint/machine-states.ts';
import { toStore } from '../../checkpoint/open.ts';
import type { VirtualMachine } from '../../checkpoint/virtual-machine.ts';
import { memoryContext, planOf } from '../../checkpoint/vm-plan.ts';
import { openCheckpoint } from '../../context/checkpoint.ts';
import { CheckpointError } from '../../errors/index.ts';
import { checkpointDigest } from '../../memory/digest.ts';
import { type DirtyTracker, type EncodeOptions, PageEncoder } from '../../memory/index.ts';
import type { CommitSummary, Store, StoreClaims } from '../../store/index.ts';
import { SharedTracker } from './shared-tracker.ts';

export interface SafetyOptions extends Pick<IncrementOptions, 'parent' | 'parents'> {
  /** Its place: what is there is replaced. It should outlive both hosts. */
  readonly store: string | Store;
}

/** The safety checkpoint of a guest that has moved. It stays until somebody removes it. */
export interface SafetyReport {
  readonly url: string;
  readonly uuid: string;
  /** Root digest, hexadecimal. */
  readonly root: string;
  readonly checkpointBytes: number;
  /** Of an increment: UUID of its parent. */
  readonly parent: string | undefined;
  /** How long the guest stood still for it, milliseconds. */
  readonly ms: number;
}

export interface SafetyFacts {
  readonly migration: string;
  /** Where the guest goes. */
  readonly url: string;
  readonly encode: Pick<EncodeOptions, 'codec' | 'acceleration' | 'dedup' | 'threads'>;
}

export class SafetyCheckpoint {
  readonly #vm: VirtualMachine;
  readonly #store: Store;
  readonly #claims: StoreClaims;
  readonly #increment: Increment;
  /** For the rounds, in place of the machine's; undefined: that one. */
  readonly tracker: DirtyTracker | undefined;
  readonly #facts: SafetyFacts;
  /** UUID of the checkpoint that is in the store. */
  #written: string | undefined;
  #report: SafetyReport | undefined;

  private constructor(
    vm: VirtualMachine,
    store: Store,
    claims: StoreClaims,
    increment: Increment,
    tracker: DirtyTracker | undefined,
    facts: SafetyFacts,
  ) {
    this.#vm = vm;
    this.#store = store;
    this.#claims = claims;
    this.#increment = increment;
    this.tracker = tracker;
    this.#facts = facts;
  }

  /**
   * While the guest runs: reads the parent, unless the machine's tracker has watched since. Before that tracker's log is reset. Throws `CHKPT_UNSUPPORTED` where the store cannot keep a claim, `CHKPT_PARENT_*`,
   * `CHKPT_VM_REGIONS`, and errors of the parent's store.
   */
  static async prepare(
    vm: VirtualMachine,
    asked: string | SafetyOptions,
    facts: SafetyFacts,
    signal: AbortSignal | undefined,
  ): Promise<SafetyCheckpoint> {
    const {
      store: place,
      parent,
      parents,
    }: SafetyOptions = typeof asked === 'string' ? { store: asked } : asked;
    const store = toStore(place);
    if (store.claims === undefined) {
      const what = 'this store cannot record who goes on with a safety checkpoint';
      throw new CheckpointError('CHKPT_UNSUPPORTED', what, { details: { store: store.url } });
    }
    const { threads } = facts.encode;
    const shared = parent === undefined ? undefined : await SharedTracker.of(vm.dirtyTracker);
    const tracked = { dirtyTracker: shared?.increment };
    const increment = await Increment.prepare(tracked, vm.memory, store, {
      parent,
      parents,
      threads,
      signal,
    });
    return new SafetyCheckpoint(vm, store, store.claims, increment, shared?.rounds, facts);
  }

  /** Undefined: there is none. */
  get report(): SafetyReport | undefined {
    return this.#report;
  }

  /** Once, when the guest stands still. When it resolves the checkpoint is as durable as its store is, and claimed. */
  async save(signal: AbortSignal): Promise<void> {
    const begin = performance.now();
    const { uuid, root, bytes } = await this.#write(signal);
    this.#written = uuid;
    const { migration, url } = this.#facts;
    const by = `migration ${migration} to ${url}, process ${process.pid} on ${hostname()}`;
    await this.#claims.take({ uuid, by, timeMs: Date.now() });
    const ms = performance.now() - begin;
    this.#report = {
      ...{ url: this.#store.url, uuid, root, ms },
      checkpointBytes: bytes,
      parent: this.#increment.parent?.uuid,
    };
  }

  /** The guest stayed: nobody shall go on with what it was. Never rejects. */
  async drop(): Promise<void> {
    const written = this.#written;
    if (written === undefined) return;
    try {
      const there = await openCheckpoint(this.#store, { mode: 'load', digest: await checkpointDigest() });
      const { uuid } = there;
      await there.close();
      if (uuid === written) await this.#store.remove?.();
    } catch {
      // It is claimed, which is what counts.
    }
  }

  async #write(signal: AbortSignal): Promise<CommitSummary> {
    const { memory } = this.#vm;
    const increment = this.#increment;
    if (memory === undefined) throw new CheckpointError('CHKPT_INTERNAL', 'the machine has lost its memory');
    const checkpoint = await openCheckpoint(this.#store, {
      ...{ mode: 'save', digest: await checkpointDigest(), signal },
      ...increment.reference,
    });
    try {
      const parentUrl = increment.link(this.#store.url);
      await saveStates(this.#vm, planOf(this.#vm, []), checkpoint, { skip: [], parentUrl });
      const changes = await increment.take();
      const pages = new PageEncoder(memory, { ...this.#facts.encode, ...changes });
      await checkpoint.saveMemory(memoryContext, pages, { signal });
      return await checkpoint.commit();
    } catch (error) {
      await checkpoint.abort();
      throw error;
    }
  }
}
