/**
 * A virtual machine without a guest: memory, devices and processors that change as it runs, all checkable.
 *
 * Native threads are the guest's processors: they write pages that say which page they are and when they were
 * written. How many pages they have written is the clock of the machine, a part of its state; devices and
 * cores catch up with it when the machine is paused. So a machine that was loaded goes on where the saved one
 * stopped.
 *
 * Owns memory and threads; `close()` gives both back. Calls may overlap: they run one after the other.
 */
import {
  type Core,
  type Device,
  GuestMemory,
  type TrackOptions,
  trackMemory,
  type VirtualMachine,
} from '../../index.ts';
import { checkThreads } from '../../memory/index.ts';
import { awaitNative, callNative, type NativeStampWriter, nativeAddon } from '../../native/index.ts';
import { type MachineTracker, TrackerPlace } from '../machine-tracker.ts';
import { RunGate } from '../run-gate.ts';
import { DiskController } from './disk-controller.ts';
import { digestMachine } from './machine-digest.ts';
import { NetworkCard } from './network-card.ts';
import {
  configurationOf,
  type SyntheticConfiguration,
  type SyntheticVmOptions,
  writePagesOf,
} from './options.ts';
import { Processor } from './processor.ts';
import { SerialPort } from './serial-port.ts';
import type { Clocked } from './state-cell.ts';
import { Timer } from './timer.ts';

/** What the stamped pages of a memory say. */
export interface StampCheck {
  /** Pages with a stamp that is right. */
  readonly stamped: number;
  /** Pages with a stamp that is wrong: torn, damaged or in the wrong place. */
  readonly damaged: number;
  /** Number of the first of them; means nothing when there is none. */
  readonly firstDamaged: number;
  /** The latest time on a right stamp, in ticks of the machine's clock. */
  readonly highestCounter: number;
}

export class SyntheticVm implements VirtualMachine, AsyncDisposable {
  readonly id: string;
  readonly cpu: { readonly vendor: string; readonly model: string };
  readonly memory: GuestMemory;
  readonly cores: readonly Core[];
  readonly devices: readonly Device[];
  readonly #timer = new Timer();
  readonly #clocked: readonly Clocked[];
  readonly #writer: NativeStampWriter;
  readonly #gate = new RunGate(this);
  readonly #tracker = new TrackerPlace();
  #running = false;
  #generation: string | undefined;

  private constructor(
    { id, cpu, cores, drives }: SyntheticConfiguration,
    memory: GuestMemory,
    writer: NativeStampWriter,
  ) {
    this.id = id;
    this.cpu = cpu;
    this.memory = memory;
    this.#writer = writer;
    const devices = [this.#timer, new SerialPort(), new NetworkCard(), new DiskController(drives)];
    const processors = Array.from({ length: cores }, (_, index) => new Processor(index));
    this.devices = devices;
    this.cores = processors;
    this.#clocked = [...devices, ...processors];
  }

  /** Makes a machine, paused. Throws `TypeError`, `RangeError`, `CHKPT_NO_MEMORY`, `CHKPT_NO_NATIVE`. */
  static async create(options: SyntheticVmOptions = {}): Promise<SyntheticVm> {
    const configuration = configurationOf(options);
    const { seed, threads, pagesPerSecond, pattern } = configuration;
    const memory = GuestMemory.allocate(configuration.regions);
    try {
      const pages = writePagesOf(options, memory.pageCount);
      if (configuration.guestLike) {
        await memory.hold(awaitNative(memory.native.fillGuestLike(seed, checkThreads(undefined))));
      }
      const { StampWriter } = nativeAddon();
      const writer = callNative(
        () => new StampWriter(memory.native, { threads, pagesPerSecond, pattern, seed, ...pages }),
      );
      return new SyntheticVm(configuration, memory, writer);
    } catch (error) {
      await memory.close();
      throw error;
    }
  }

  get running(): boolean {
    return this.#running;
  }

  /** Why the machine must not run; `undefined` when it may. */
  get failure(): Error | undefined {
    return this.#gate.failure;
  }

  /** The clock: pages that were written in the life of this machine, before and after loads. */
  get ticks(): bigint {
    return this.#running ? this.#writer.counter() : this.#timer.ticks;
  }

  /** Pages that the threads of this object have written. */
  get pagesWritten(): number {
    return this.#writer.pagesWritten();
  }

  get dirtyTracker(): MachineTracker | undefined {
    return this.#tracker.current;
  }

  /**
   * Tells increments what changed, from the next save or load on; also `dirtyTracker`. Closed with the machine. Throws `TypeError` for
   * a second one, `CHKPT_CLOSED`, and what `trackMemory` does.
   */
  trackChanges(options: TrackOptions = {}): MachineTracker {
    this.#gate.checkOpen();
    return this.#tracker.open(() => ({
      memory: this.memory,
      open: () => trackMemory(this.memory, options),
      isCurrent: () => true,
    }));
  }

  pause(): Promise<void> {
    return this.#gate.pause(() => this.#pause());
  }

  resume(): Promise<void> {
    return this.#gate.resume(() => {
      this.#writer.setCounter(this.#timer.ticks);
      this.#running = true;
      this.#writer.resume();
    });
  }

  /** Generation id of a machine that was loaded as a clone. */
  get generation(): string | undefined {
    return this.#generation;
  }

  setGeneration(generation: string): void {
    this.#generation = generation;
  }

  beginLoad(): void {
    this.#generation = undefined;
    this.#gate.beginLoad();
  }

  endLoad(failure?: Error): void {
    this.#gate.endLoad(failure);
  }

  /** Digest of memory and of all state; see `digestMachine`. Throws `CHKPT_VM_RUNNING`. */
  digest(): Promise<string> {
    return this.#gate.whilePaused(() => digestMachine(this));
  }

  /** Checks every page that carries a stamp. Throws `CHKPT_VM_RUNNING`. */
  checkStamps(): Promise<StampCheck> {
    return this.#gate.whilePaused(() => this.memory.hold(awaitNative(this.memory.native.checkStamps())));
  }

  /** Pauses, ends the threads and gives the memory back. Harmless when called twice. */
  close(): Promise<void> {
    return this.#gate.close(async () => {
      await this.#pause();
      await this.#writer.stop();
      await this.#tracker.close();
      await this.memory.close();
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #pause(): Promise<void> {
    if (!this.#running) return;
    await this.#writer.pause();
    const ticks = this.#writer.counter() - this.#timer.ticks;
    for (const one of this.#clocked) one.advance(ticks);
    this.#running = false;
  }
}
