/**
 * A small machine and the chain of its checkpoints: a whole one and increments with every class of page, runs of the parent's
 * pages, a block of zeros, and device state that changes. The same each time.
 */
import {
  defineState,
  GuestMemory,
  type SaveReport,
  saveVm,
  statePart,
  u32,
  type VirtualMachine,
} from '../../src/index.ts';
import { pageOfKind } from './page-content.ts';

const pageBytes = 4096;
const firstPages = 40;
const secondBase = 2 ** 32;
/** Pages 0 to 39 and 40 to 59. */
export const chainRegions = [
  { base: 0, bytes: firstPages * pageBytes },
  { base: secondBase, bytes: 20 * pageBytes },
];

const zeros = pageOfKind(2, 0);
const fill = (page: number): Uint8Array | undefined => pageOfKind(3 + (page % 2), page);
const text = (variant: number): Uint8Array | undefined => pageOfKind(5 + variant, 0);
const noise = (seed: number): Uint8Array | undefined => pageOfKind(9, seed);

/** What each member writes, by page. */
const writes: readonly Readonly<Record<number, Uint8Array | undefined>>[] = [
  {
    ...{ 0: text(0), 1: noise(1), 2: fill(2), 3: text(0), 15: text(1) },
    ...Object.fromEntries(Array.from({ length: 8 }, (_, at) => [32 + at, fill(at)])),
    ...{ 17: noise(1), 40: noise(40), 45: text(1), 59: fill(59) },
  },
  {
    // Stored, zero, fill, same; then a block of zeros; then pages equal to ones of another region and block.
    ...{ 0: text(2), 1: zeros, 2: fill(3), 3: text(2) },
    ...Object.fromEntries(Array.from({ length: 8 }, (_, at) => [32 + at, zeros])),
    ...{ 44: text(2), 45: fill(3) },
  },
  {
    // Raw data; a page that is what it was in the base; content of the parent's pages that no page here may name.
    ...{ 1: text(2), 3: text(0), 32: noise(32), 33: noise(1), 50: noise(32), 45: zeros },
  },
  { 17: zeros, 18: noise(18), 31: noise(18), 59: text(0) },
];

export const chainDepthMax = writes.length - 1;
export const chainUuid = (member: number): string => `c4a1c4a1-0000-4000-8000-00000000000${member}`;

const counterState = defineState({ counter: u32 });

export class ChainVm implements VirtualMachine {
  readonly id = 'chain';
  readonly cpu = { vendor: 'test', model: 'test' };
  readonly cores = [];
  readonly memory: GuestMemory = GuestMemory.allocate(chainRegions);
  counter = 0;
  running = false;
  failure: Error | undefined;
  readonly devices = [
    {
      id: 'timer0',
      deviceClass: 'timer',
      contexts: [
        {
          name: 'timer0',
          parts: [
            statePart({
              state: counterState,
              get: () => ({ counter: this.counter }),
              set: ({ counter }) => {
                this.counter = counter;
              },
            }),
          ],
        },
      ],
    },
  ];

  write(page: number, bytes: Uint8Array): void {
    const address = page < firstPages ? page * pageBytes : secondBase + (page - firstPages) * pageBytes;
    this.memory.write(address, bytes);
  }

  /** The bytes of all regions, one behind the other. */
  image(): Buffer {
    return Buffer.concat(chainRegions.map(({ base, bytes }) => this.memory.read(base, bytes)));
  }

  async pause(): Promise<void> {
    this.running = false;
  }

  async resume(): Promise<void> {
    if (this.failure !== undefined) throw this.failure;
    this.running = true;
  }

  beginLoad(): void {
    this.failure = new Error('a load is under way');
  }

  endLoad(failure?: Error): void {
    this.failure = failure;
  }
}

/** One checkpoint of the chain, and the machine as it was then. */
export interface ChainMember {
  readonly url: string;
  readonly image: Buffer;
  readonly report: SaveReport;
}

/** Saves a whole checkpoint at `${prefix}0` and increments at `${prefix}1` to `${prefix}${depth}`. */
export async function saveChain(prefix: string, depth: number): Promise<ChainMember[]> {
  const vm = new ChainVm();
  const members: ChainMember[] = [];
  for (const [member, pages] of writes.slice(0, depth + 1).entries()) {
    for (const [page, bytes] of Object.entries(pages)) if (bytes !== undefined) vm.write(Number(page), bytes);
    vm.counter = 100 + member;
    const url = `${prefix}${member}`;
    const report = await saveVm(vm, url, {
      uuid: chainUuid(member),
      createdMs: 1_700_000_000_000 + member,
      threads: 1,
      parent: members.at(-1)?.url,
    });
    members.push({ url, image: vm.image(), report });
  }
  await vm.memory.close();
  return members;
}
