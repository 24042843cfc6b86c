/**
 * RAM images and named values that `receiveVm` takes, as a machine that is made to measure: its memory is files beside their targets, and to let
 * it run is to give them their names. Until then, and after a failure, nothing of it can be seen.
 */
import { randomUUID } from 'node:crypto';
import {
  CheckpointError,
  type Device,
  GuestMemory,
  type MachineOffer,
  type VirtualMachine,
} from '../index.ts';
import { deviceOf, noCpu } from './image-devices.ts';
import { type MemoryArgument, matchOutputs, type RegionOutput } from './memory-argument.ts';
import { type OutputFile, OutputFiles } from './output-files.ts';
import type { StateInput } from './state-argument.ts';

export interface ReceivedValue extends StateInput {
  readonly byteCount: number;
}

export class ReceivedImages implements VirtualMachine {
  readonly id = 'images';
  readonly cpu = noCpu;
  readonly cores = [];
  readonly devices: readonly Device[];
  readonly #outputs: readonly MemoryArgument[];
  readonly #states: readonly StateInput[];
  readonly #files: OutputFiles;
  readonly #created: OutputFile[] = [];
  readonly #values = new Map<string, ReadonlyMap<string, Uint8Array>>();
  #memory: GuestMemory | undefined;
  #regions: readonly RegionOutput[] = [];
  #failure: Error | undefined;
  #isPublished = false;

  /** `address` is for errors. Opens nothing. */
  constructor(outputs: readonly MemoryArgument[], states: readonly StateInput[], address: string) {
    this.#outputs = outputs;
    this.#states = states;
    this.#files = new OutputFiles(randomUUID(), address);
    this.devices = [...new Set(states.map(({ context }) => context))].sort().map((context) =>
      deviceOf(context, {
        get: () => new Map(),
        set: (values) => void this.#values.set(context, values),
      }),
    );
  }

  get memory(): GuestMemory | undefined {
    return this.#memory;
  }

  get regions(): readonly RegionOutput[] {
    return this.#regions;
  }

  get values(): readonly ReceivedValue[] {
    return this.#states.map((state) => ({ ...state, byteCount: this.#valueOf(state)?.length ?? 0 }));
  }

  get running(): boolean {
    return this.#isPublished;
  }

  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Makes the files for what is offered. Throws `CHKPT_VM_REGIONS` when that is not what the outputs are for, and what creating files does. */
  async prepare({ regions }: MachineOffer): Promise<void> {
    if (this.#memory !== undefined) return;
    this.#regions = regionsFor(this.#outputs, regions);
    const places = [];
    for (const { path, base, bytes } of this.#regions) {
      const file = await this.#files.create(path);
      this.#created.push(file);
      places.push({ file: file.handle.fd, base, bytes });
    }
    for (const { path } of this.#states) this.#created.push(await this.#files.create(path));
    this.#memory = await GuestMemory.openFiles(places, { fresh: true });
  }

  beginLoad(): void {
    this.#failure = new CheckpointError('CHKPT_VM_FAILED', 'the images are not whole');
  }

  /** All is here: values are written and everything is flushed, so that little is left that can go wrong later. */
  async endLoad(failure?: Error): Promise<void> {
    if (failure === undefined) {
      for (const [index, state] of this.#states.entries()) {
        const { context, tag } = state;
        const data = this.#valueOf(state);
        const file = this.#created[this.#regions.length + index];
        if (data === undefined || file === undefined) {
          throw new CheckpointError('CHKPT_NO_TAG', 'the source has no such value', {
            details: { context, tag },
          });
        }
        await this.#files.write(file, data);
      }
      for (const { handle } of this.#created) await handle.sync();
    }
    this.#failure = failure;
  }

  async pause(): Promise<void> {
    // Nothing changes files that nobody knows.
  }

  /** Gives all files their names. The source has let go of them: this is not cancelled any more. */
  async resume(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    await this.#files.publish(new AbortController().signal);
    this.#isPublished = true;
  }

  async close(): Promise<void> {
    await this.#memory?.close();
    await this.#files.discard();
  }

  #valueOf({ context, tag }: StateInput): Uint8Array | undefined {
    return this.#values.get(context)?.get(tag);
  }
}

/** Whoever offers something else is told, and it is no mistake in the command line of this side alone. */
function regionsFor(outputs: readonly MemoryArgument[], offered: MachineOffer['regions']): RegionOutput[] {
  try {
    GuestMemory.describe(offered);
    return matchOutputs(outputs, offered);
  } catch (error) {
    throw new CheckpointError(
      'CHKPT_VM_REGIONS',
      `not the memory that is offered: ${(error as Error).message}`,
    );
  }
}
