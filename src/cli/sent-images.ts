/**
 * RAM images and named values as a machine that `sendVm` moves. It has no guest: whoever writes the images does, and nobody can stop that one
 * from here. So the machine counts as running until its last round, and again when an image was touched after that: then it is not what
 * was sent, and stays.
 */

import { CheckpointError, type Device, type GuestMemory, type VirtualMachine } from '../index.ts';
import { type CpuFacts, deviceOf, noCpu } from './image-devices.ts';
import type { RamImages } from './ram-images.ts';
import type { StateInput } from './state-argument.ts';
import { readStates, type StateGroup } from './state-files.ts';

export class SentImages implements VirtualMachine {
  readonly id: string;
  readonly cpu: CpuFacts = noCpu;
  readonly cores = [];
  readonly memory: GuestMemory;
  readonly devices: readonly Device[];
  readonly #images: RamImages;
  readonly #readStates: () => Promise<readonly StateGroup[]>;
  #values: ReadonlyMap<string, StateGroup> = new Map();
  /** What the images said of themselves when the last round began. */
  #still: string | undefined;
  #failure: Error | undefined;

  private constructor(
    id: string,
    images: RamImages,
    memory: GuestMemory,
    states: readonly StateInput[],
    signal: AbortSignal,
  ) {
    this.id = id;
    this.#images = images;
    this.memory = memory;
    this.#readStates = () => readStates(states, signal);
    this.devices = [...new Set(states.map(({ context }) => context))].sort().map((context) =>
      deviceOf(context, {
        get: () => new Map(this.#values.get(context)?.values),
        set: () => undefined,
      }),
    );
  }

  /** `states` are read when the last round begins. Throws `CHKPT_NO_NATIVE`. */
  static async open(
    images: RamImages,
    { id, states, signal }: { id: string; states: readonly StateInput[]; signal: AbortSignal },
  ): Promise<SentImages> {
    return new SentImages(id, images, await images.openMemory(), states, signal);
  }

  get running(): boolean {
    return this.#failure === undefined && this.#still !== this.#images.describeChanges();
  }

  get failure(): Error | undefined {
    return this.#failure;
  }

  async pause(): Promise<void> {
    this.#values = new Map((await this.#readStates()).map((group) => [group.context, group]));
    this.#still = this.#images.describeChanges();
  }

  async resume(): Promise<void> {
    this.#still = undefined;
  }

  beginLoad(): void {
    if (this.running) throw new CheckpointError('CHKPT_VM_RUNNING', 'somebody writes to the RAM image');
    this.#failure = new CheckpointError('CHKPT_VM_FAILED', 'the images are being handed over');
  }

  endLoad(failure?: Error): void {
    this.#failure = failure;
  }

  async close(): Promise<void> {
    await this.memory.close();
  }
}
