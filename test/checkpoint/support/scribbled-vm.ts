/** A machine that is nothing but memory, and a tracker that is told what is written through it. */
import {
  type Device,
  GuestMemory,
  type MemoryTracker,
  type TrackerKind,
  trackMemory,
  type VirtualMachine,
} from '../../../src/index.ts';

const mebibyte = 1024 ** 2;
export const twoRegions = [
  { base: 0, bytes: 12 * mebibyte },
  { base: 4 * 1024 ** 3, bytes: 4 * mebibyte },
];

/** A small generator of random numbers: the tests are the same each time. */
export function randomNumbers(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

export class ScribbledVm implements VirtualMachine {
  readonly id = 'scribbled';
  readonly cpu = { vendor: 'test', model: 'test' };
  readonly cores = [];
  readonly devices: readonly Device[] = [];
  readonly memory: GuestMemory;
  readonly dirtyTracker: MemoryTracker | undefined;
  readonly #random: (below: number) => number;
  running = false;
  failure: Error | undefined;

  constructor(
    seed: number,
    tracked: boolean | TrackerKind,
    memory: typeof twoRegions | GuestMemory = twoRegions,
  ) {
    this.memory = memory instanceof GuestMemory ? memory : GuestMemory.allocate(memory);
    const kind = tracked === true ? 'reported' : tracked;
    this.dirtyTracker = kind === false ? undefined : trackMemory(this.memory, { kind });
    this.#random = randomNumbers(seed);
  }

  get pageCount(): number {
    return Number(this.memory.byteLength) / 4096;
  }

  /** Writes `count` random pages: zeros, one word, text, noise, and what another page holds. */
  scribble(count: number): void {
    for (let i = 0; i < count; i += 1) this.write(this.#random(this.pageCount), this.#content());
  }

  write(page: number, bytes: Uint8Array): void {
    this.memory.write(this.#addressOf(page), bytes);
  }

  read(page: number): Uint8Array {
    const bytes = new Uint8Array(4096);
    this.memory.read(this.#addressOf(page), bytes);
    return bytes;
  }

  async pause(): Promise<void> {
    this.running = false;
  }

  async resume(): Promise<void> {
    this.running = true;
  }

  beginLoad(): void {
    this.failure = new Error('a load is under way');
  }

  endLoad(failure?: Error): void {
    this.failure = failure;
  }

  #addressOf(page: number): bigint {
    let left = BigInt(page) * 4096n;
    for (const { base, bytes } of this.memory.regions) {
      if (left < bytes) return base + left;
      left -= bytes;
    }
    throw new RangeError(`no page ${page}`);
  }

  #content(): Uint8Array {
    const page = new Uint8Array(4096);
    switch (this.#random(5)) {
      case 0:
        return page;
      case 1:
        return page.fill(this.#random(256));
      case 2:
        return page.map((_, i) => (i * this.#random(7)) >> 3);
      case 3:
        return this.read(this.#random(this.pageCount));
      default:
        return page.map(() => this.#random(256));
    }
  }
}
