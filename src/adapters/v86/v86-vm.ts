/**
 * A v86 emulator as a virtual machine: guest memory is v86's own WebAssembly memory, attached without a copy; each device is a
 * context, the processor is core 0.
 *
 * The emulator stays its owner's: `close()` lets go of it and nothing else. While it is wrapped, `pause()` and `resume()` of this
 * object take the place of its `stop()` and `run()`.
 */
import {
  type Core,
  type Device,
  GuestMemory,
  openState,
  type StateContext,
  type StatePart,
  statePart,
  type TrackOptions,
  type TypedTags,
  trackMemory,
  type VirtualMachine,
} from '../../index.ts';
import { type MachineTracker, type TrackedMemory, TrackerPlace } from '../machine-tracker.ts';
import { RunGate } from '../run-gate.ts';
import {
  captureState,
  checkEmulator,
  deviceNames,
  memoryEntries,
  memoryOf,
  restoreState,
  type V86Emulator,
} from './emulator.ts';
import { isDependent, memorySizeEntry, placedDevices } from './layout.ts';
import type { EmulatorState, StateNode } from './state-file.ts';
import { decodeEntry, encodeEntry } from './state-tags.ts';

export interface V86VmOptions {
  /** Identity of the machine, checked on load. Default `v86`. */
  readonly id?: string | undefined;
}

export class V86Vm implements VirtualMachine, AsyncDisposable {
  readonly id: string;
  readonly cpu: { readonly vendor: string; readonly model: string };
  readonly cores: readonly Core[];
  readonly devices: readonly Device[];
  readonly #emulator: V86Emulator;
  readonly #gate = new RunGate(this);
  /** State since the guest was last stopped or loaded; taken once, so that two saves see the same time-stamp counter. */
  #state: EmulatorState | undefined;
  /** Entries that a load has brought. */
  readonly #loaded = new Map<number, StateNode>();
  #memory: { readonly buffer: unknown; readonly memory: GuestMemory } | undefined;
  readonly #tracker = new TrackerPlace();
  /** What the tracker watches: stays open also when `memory` is another one. */
  #trackedMemory: GuestMemory | undefined;

  private constructor(emulator: V86Emulator, id: string, state: EmulatorState) {
    this.id = id;
    this.#emulator = emulator;
    this.cpu = { vendor: 'v86', model: `state format ${state.version}` };
    const names = deviceNames(emulator);
    const own = state.entries
      .map((entry, index) => ({ entry, index }))
      .filter(({ entry, index }) => entry !== null && index !== memorySizeEntry && !memoryEntries.has(index));
    const nameOf = (index: number): string | undefined => names.get(index) ?? placedDevices.get(index);
    this.devices = own.flatMap(({ index }) => {
      const name = nameOf(index);
      if (name === undefined) return [];
      const context: StateContext = { name, parts: [this.#part(name, index, '')] };
      return [{ id: name, deviceClass: `v86.${name}`, contexts: [context] }];
    });
    const processor = own.filter(({ index }) => nameOf(index) === undefined).map(({ index }) => index);
    const parts = (indexes: readonly number[], context: string): StatePart<never>[] =>
      indexes.map((index) => this.#part(context, index, `${index}:`));
    this.cores = [
      {
        independent: parts(
          processor.filter((index) => !isDependent(index)),
          'core0',
        ),
        dependent: parts(processor.filter(isDependent), 'core0.arch'),
      },
    ];
  }

  /**
   * Wraps an emulator that has said "emulator-ready", made with `autostart: false` or stopped or running. A machine can load
   * what another one saved when both were made with the same options.
   *
   * Throws `CHKPT_UNSUPPORTED` when it is no emulator or a version that is built otherwise.
   */
  static async wrap(emulator: V86Emulator, options: V86VmOptions = {}): Promise<V86Vm> {
    const { id = 'v86' } = options;
    if (typeof id !== 'string' || id === '') throw new TypeError('the id must be a string that is not empty');
    checkEmulator(emulator);
    const wasRunning = emulator.is_running();
    if (wasRunning) await emulator.stop();
    const vm = new V86Vm(emulator, id, await captureState(emulator));
    if (wasRunning) await vm.resume();
    return vm;
  }

  /** The guest's memory as it lies in WebAssembly memory now; another object after that has grown. */
  get memory(): GuestMemory {
    const place = memoryOf(this.#emulator);
    const { buffer } = place.memory;
    const old = this.#memory;
    if (old !== undefined && old.buffer === buffer) return old.memory;
    if (old?.memory !== this.#trackedMemory) void old?.memory.close();
    const memory = GuestMemory.attach([place]);
    this.#memory = { buffer, memory };
    return memory;
  }

  get dirtyTracker(): MachineTracker | undefined {
    return this.#tracker.current;
  }

  /**
   * Tells increments what changed, from the next save or load on; also `dirtyTracker`. Closed with this object. Throws `TypeError` for
   * a second one, `CHKPT_CLOSED`, and what `trackMemory` does.
   */
  trackChanges(options: TrackOptions = {}): MachineTracker {
    this.#gate.checkOpen();
    return this.#tracker.open(() => this.#track(options));
  }

  get running(): boolean {
    return this.#emulator.is_running();
  }

  /** Why the machine must not run; `undefined` when it may. */
  get failure(): Error | undefined {
    return this.#gate.failure;
  }

  pause(): Promise<void> {
    return this.#gate.pause(() => this.#emulator.stop());
  }

  resume(): Promise<void> {
    return this.#gate.resume(async () => {
      this.#state = undefined;
      await this.#emulator.run();
    });
  }

  beginLoad(): void {
    this.#gate.beginLoad();
    this.#loaded.clear();
  }

  /** Hands the whole state to v86 at once, which then forgets every translation of the old memory. */
  async endLoad(failure?: Error): Promise<void> {
    if (failure === undefined) {
      const { version, entries } = await this.#stateNow();
      const state = { version, entries: entries.map((entry, index) => this.#loaded.get(index) ?? entry) };
      await restoreState(this.#emulator, state, new Set(this.#loaded.keys()));
      this.#state = state;
    } else {
      this.#state = undefined;
    }
    this.#loaded.clear();
    this.#gate.endLoad(failure);
  }

  /** Lets go of the emulator, which runs on if it runs. */
  close(): Promise<void> {
    return this.#gate.close(async () => {
      await this.#tracker.close();
      await this.#memory?.memory.close();
      this.#memory = undefined;
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #track(options: TrackOptions): TrackedMemory {
    const { memory } = this;
    this.#trackedMemory = memory;
    return {
      memory,
      open: () => trackMemory(memory, options),
      // What is written by `memory.write` after a growth is unknown to a tracker that is only told.
      isCurrent: (kind) =>
        memory === this.memory || (kind !== 'reported' && memory.sharesBytesWith(this.memory)),
      release: async () => {
        this.#trackedMemory = undefined;
        if (memory !== this.#memory?.memory) await memory.close();
      },
    };
  }

  #part(context: string, index: number, prefix: string): StatePart<never> {
    return statePart<TypedTags>({
      state: openState({ prefix }),
      get: async () => encodeEntry((await this.#stateNow()).entries[index] ?? null),
      check: async (tags) => {
        decodeEntry(context, tags, (await this.#stateNow()).entries[index] ?? null);
      },
      set: async (tags) => {
        const current = (await this.#stateNow()).entries[index] ?? null;
        this.#loaded.set(index, decodeEntry(context, tags, current));
      },
    });
  }

  async #stateNow(): Promise<EmulatorState> {
    this.#gate.checkPaused();
    this.#state ??= await captureState(this.#emulator);
    return this.#state;
  }
}
