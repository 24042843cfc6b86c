/** A machine that has no dirty tracker of its own, with one: for whoever saves it again and again. */
import type { GuestMemory, MemoryTracker } from '../memory/index.ts';
import { takesTurnsWith } from './turns.ts';
import type { Core, Device, VirtualMachine } from './virtual-machine.ts';

export interface WatchedVm {
  readonly vm: VirtualMachine;
  /** Ends the tracker, when it is not the machine's own. */
  close(): Promise<void>;
}

/**
 * `vm` itself when it has a tracker, or when its memory belongs to somebody else, who may move it. `open` opens a tracker of its memory.
 * Throws what `open` throws.
 */
export function watched(vm: VirtualMachine, open: (memory: GuestMemory) => MemoryTracker): WatchedVm {
  const { memory } = vm;
  if (vm.dirtyTracker !== undefined || memory === undefined || memory.isAttached) {
    return { vm, close: async () => undefined };
  }
  const tracker = open(memory);
  const tracked = new TrackedVm(vm, memory, tracker);
  takesTurnsWith(tracked, vm);
  return { vm: tracked, close: () => tracker.close() };
}

class TrackedVm implements VirtualMachine {
  readonly #vm: VirtualMachine;
  readonly #watchedMemory: GuestMemory;
  readonly #tracker: MemoryTracker;

  constructor(vm: VirtualMachine, memory: GuestMemory, tracker: MemoryTracker) {
    this.#vm = vm;
    this.#watchedMemory = memory;
    this.#tracker = tracker;
  }

  /** A machine that has got other memory meanwhile is not watched. */
  get dirtyTracker(): MemoryTracker | undefined {
    return this.#vm.memory === this.#watchedMemory ? this.#tracker : undefined;
  }

  get id(): string {
    return this.#vm.id;
  }

  get cpu(): VirtualMachine['cpu'] {
    return this.#vm.cpu;
  }

  get memory(): GuestMemory | undefined {
    return this.#vm.memory;
  }

  get cores(): readonly Core[] {
    return this.#vm.cores;
  }

  get devices(): readonly Device[] {
    return this.#vm.devices;
  }

  get running(): boolean {
    return this.#vm.running;
  }

  get failure(): Error | undefined {
    return this.#vm.failure;
  }

  pause(): Promise<void> {
    return this.#vm.pause();
  }

  resume(): Promise<void> {
    return this.#vm.resume();
  }

  beginLoad(): void {
    this.#vm.beginLoad();
  }

  endLoad(failure?: Error): void | Promise<void> {
    return this.#vm.endLoad(failure);
  }
}
