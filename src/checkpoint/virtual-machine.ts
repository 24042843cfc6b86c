/**
 * A virtual machine as chkpt sees it: written by the consumer, small. Embedders implement it; `src/adapters` has examples.
 *
 * State is described, not serialised: a part names a state definition and how to read and replace its values, and the same
 * definition drives save and load.
 */
import type { StateDefinition } from '../context/state.ts';
import type { DirtyTracker, GuestMemory } from '../memory/index.ts';

/**
 * One piece of state inside a context. Several parts share a context when their definitions have different prefixes: a
 * class part (`pci.`) and a device part (`nic.`), for example.
 */
export interface StatePart<T = unknown> {
  readonly state: StateDefinition<T>;
  /** The current values. Called while the machine is paused. */
  get(): T | Promise<T>;
  /**
   * Throws when the machine cannot take these values, with a typed error that says which. Called before anything of the machine
   * is touched.
   */
  check?(value: T): void | Promise<void>;
  /**
   * Replaces the values. Called while the machine is paused, after the whole checkpoint was read and verified.
   */
  set(value: T): void | Promise<void>;
}

/** A named group of state; the name is unique in the checkpoint. */
export interface StateContext {
  readonly name: string;
  readonly parts: readonly StatePart<never>[];
}

/** A device owns one context or several. */
export interface Device {
  /** Unique in the machine. */
  readonly id: string;
  /** What kind of device it is, for people and for the check on load: `8254`, `e1000`. */
  readonly deviceClass: string;
  readonly contexts: readonly StateContext[];
}

/** A virtual processor. Its contexts are named `core<k>` and `core<k>.arch` by position. */
export interface Core {
  /** State that any implementation of the architecture has. */
  readonly independent: readonly StatePart<never>[];
  /** State that depends on the virtualisation hardware; left out with `skip: ['archdep']`. */
  readonly dependent?: readonly StatePart<never>[];
}

export interface VirtualMachine {
  readonly id: string;
  readonly cpu: { readonly vendor: string; readonly model: string };
  /** Absent for a machine without memory of its own. */
  readonly memory?: GuestMemory | undefined;
  /** Knows which pages of `memory` were written: `saveVm` with a parent asks it, and tells it what is saved. */
  readonly dirtyTracker?: DirtyTracker | undefined;
  readonly cores: readonly Core[];
  readonly devices: readonly Device[];
  /** Whether the guest runs. */
  readonly running: boolean;
  /** Why it must not run: from `beginLoad()` to an `endLoad()` without error. Such a machine is not saved either. */
  readonly failure?: Error | undefined;
  /** Resolves when nothing changes memory, cores or devices any more. */
  pause(): Promise<void>;
  /** Lets the guest run. Must refuse with `CHKPT_VM_FAILED` between `beginLoad()` and a `endLoad()` without error. */
  resume(): Promise<void>;
  /**
   * Makes the guest slower, so that its memory can be sent: it runs for `1 - share` of the time, 0 ≤ share < 1. Optional: without it a
   * migration that does not converge is given up, or forced.
   */
  throttle?(share: number): void | Promise<void>;
  /** From now on state is being replaced. Throws `CHKPT_VM_RUNNING` when the machine was let run meanwhile. */
  beginLoad(): void;
  /**
   * This machine begins as the equal of another one: what must differ between the two (entropy, network addresses) is for its guest to
   * renew. `generation` is new for each load, text form of a random UUID, as the VM Generation ID of hypervisors. Called after all state
   * was set and before `endLoad`. Optional: without it a load as `clone` is refused unless forced.
   */
  setGeneration?(generation: string): void | Promise<void>;
  /**
   * Everything was replaced, or, with an error, the machine holds a mixture and must not run. When it throws or rejects
   * the load has failed, and it is called again with that error. After a lazy load it may be called with an error while the
   * guest runs, when a page could not be fetched; `pause` follows.
   */
  endLoad(failure?: Error): void | Promise<void>;
}

/** What can be left out of a checkpoint. */
export type SkipPart = 'memory' | 'devices' | 'cores' | 'archdep';

const skipBits: Readonly<Record<SkipPart, number>> = { memory: 1, devices: 2, cores: 4, archdep: 8 };

/** The value of the tag `options.skip`. Throws `TypeError` for an unknown part. */
export function encodeSkip(parts: readonly SkipPart[]): number {
  let bits = 0;
  for (const part of parts) {
    if (!Object.hasOwn(skipBits, part)) throw new TypeError(`cannot skip ${String(part)}`);
    bits |= skipBits[part];
  }
  return bits;
}

/** The parts named by the tag `options.skip`; unknown bits are left out. */
export function decodeSkip(bits: number): SkipPart[] {
  return (Object.keys(skipBits) as SkipPart[]).filter((part) => (bits & skipBits[part]) !== 0);
}

/** Types a part whose value type is known at its place; a list of parts holds different ones. */
export function statePart<T>(part: StatePart<T>): StatePart<never> {
  return part as unknown as StatePart<never>;
}
