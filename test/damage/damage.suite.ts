/**
 * A small checkpoint of a whole machine with every bit flipped, cut at every offset, extended, and with its frames moved around: each
 * time a typed error of kind `damaged` and never a success.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CheckpointError } from '../../src/errors/index.ts';
import { openCheckpoint, verifyCheckpoint } from '../../src/index.ts';
import { GuestMemory, PageEncoder } from '../../src/memory/index.ts';

const minutes = 60_000;
/** Loads under way at once: hides the hops between threads. */
const laneCount = 6;

/** One checkpoint that the suite may damage: named byte strings that are stored, and a URL that reads them. */
export interface Specimen {
  readonly url: string;
  /** The stored files (or the one byte string of a store without files), in stream order. */
  readonly parts: readonly { readonly name: string; readonly bytes: Uint8Array }[];
  /** Replaces what is stored in a part. */
  replace(name: string, bytes: Uint8Array): void;
  /** Changes one stored byte. */
  poke(name: string, offset: number, value: number): void;
}

export interface SpecimenFactory {
  /** Where `saveSample` has to save. */
  readonly url: string;
  /** An independent copy of what was saved there. */
  copy(lane: number): Promise<Specimen>;
  dispose(): Promise<void>;
}

/** About 40 KB: a header, states of every value type, and pages of every class in two regions. */
export async function saveSample(url: string): Promise<void> {
  const memory = GuestMemory.allocate([
    { base: 0, bytes: 21 * 4096 },
    { base: 1n << 33n, bytes: 64 * 4096 },
  ]);
  let state = 12345;
  const noise = (bytes: number): Uint8Array =>
    Uint8Array.from({ length: bytes }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state >>> 24;
    });
  const text = new TextEncoder()
    .encode('the quick brown fox saves its state and jumps '.repeat(90))
    .subarray(0, 4096);
  const random = noise(4096);
  memory.write(0, random);
  memory.write(3 * 4096, text);
  memory.write(4 * 4096, text);
  memory.write(5 * 4096, new Uint8Array(4096).fill(0xcc));
  memory.write(20 * 4096, noise(4096));
  memory.write((1n << 33n) + 40n * 4096n, noise(5 * 4096));
  memory.write((1n << 33n) + 47n * 4096n, random);
  const checkpoint = await openCheckpoint(url, {
    mode: 'save',
    uuid: '0b0e7f52-51a4-4c3f-8e67-1b2a3c4d5e6f',
    createdMs: 1_700_000_000_000,
  });
  const context = await checkpoint.openContext('pic');
  await context.saveAll({
    on: true,
    name: 'pic0',
    irr: 7,
    signed: -3,
    wide: 1n << 60n,
    ratio: 0.5,
    fifo: noise(5000),
    table: Uint16Array.of(1, 2, 3),
  });
  await context.close();
  await checkpoint.saveMemory('memory', new PageEncoder(memory, { threads: 1 }));
  await checkpoint.commit();
  await memory.close();
}

/** The error that reading gives. A success is the failure of the test. */
async function damageOf(url: string, what: string): Promise<CheckpointError> {
  try {
    await verifyCheckpoint(url, { threads: 1 });
  } catch (error) {
    if (error instanceof CheckpointError && error.kind === 'damaged') return error;
    throw new Error(`${what}: not an error of damage`, { cause: error });
  }
  throw new Error(`${what}: went unnoticed`);
}

/** Runs `work` for 0 ≤ index < count on all lanes. */
async function overLanes(
  lanes: readonly Specimen[],
  count: number,
  work: (lane: Specimen, index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  await Promise.all(
    lanes.map(async (lane) => {
      while (next < count) {
        const index = next;
        next += 1;
        await work(lane, index);
      }
    }),
  );
}

/**
 * How much of it in every run. The stores share one stream and one reader: one store takes a bit of every byte and every third cut, the
 * others a sample with a prime stride, which falls into every field. All eight bits and all cuts of all stores: `CHKPT_DAMAGE=full`.
 */
export type Share = 'every byte' | 'sample';

const isFull = process.env['CHKPT_DAMAGE'] === 'full';
const sampleStride = 7;

/** Files that people read, and that are small, are never sampled. */
function strideOf(share: Share, part: string): number {
  return share === 'every byte' || part === 'MANIFEST.json' || isFull ? 1 : sampleStride;
}

/** A cut costs more than a bit, and one falls into every field, too. */
function cutStrideOf(share: Share, part: string): number {
  const stride = strideOf(share, part);
  return share === 'every byte' && !isFull ? 3 * stride : stride;
}

function bitsOf(part: string, offset: number): readonly number[] {
  const all = part === 'MANIFEST.json' || isFull;
  return all ? [0, 1, 2, 3, 4, 5, 6, 7] : [(offset * 5) % 8];
}

export function damageSuite(name: string, share: Share, makeFactory: () => Promise<SpecimenFactory>): void {
  describe(`${name} notices`, () => {
    let factory: SpecimenFactory;
    let lanes: Specimen[];

    beforeAll(async () => {
      factory = await makeFactory();
      await saveSample(factory.url);
      lanes = await Promise.all(Array.from({ length: laneCount }, (_, lane) => factory.copy(lane)));
    });
    afterAll(() => factory.dispose());

    const parts = (): Specimen['parts'] => lanes[0]?.parts ?? [];

    it('nothing in an undamaged checkpoint of about 40 KB', async () => {
      for (const lane of lanes) await verifyCheckpoint(lane.url);
      const total = parts().reduce((sum, { bytes }) => sum + bytes.length, 0);
      expect(total).toBeGreaterThan(35_000);
      expect(total).toBeLessThan(48_000);
    });

    it(`flipped bits: ${isFull ? 'all' : share}`, { timeout: 90 * minutes }, async () => {
      let flips = 0;
      for (const { name: part, bytes } of parts()) {
        const stride = strideOf(share, part);
        await overLanes(lanes, Math.ceil(bytes.length / stride), async (lane, index) => {
          const offset = index * stride;
          const value = bytes[offset] ?? 0;
          for (const bit of bitsOf(part, offset)) {
            lane.poke(part, offset, value ^ (1 << bit));
            await damageOf(lane.url, `bit ${bit} of byte ${offset} of ${part}`);
            flips += 1;
          }
          lane.poke(part, offset, value);
        });
      }
      const total = parts().reduce((sum, part) => sum + part.bytes.length, 0);
      const least = share === 'every byte' ? total : total / sampleStride;
      expect(flips).toBeGreaterThanOrEqual(isFull ? 8 * total : least);
      if (isFull) console.log(`${name} ${flips} flipped bits, each noticed`);
    });

    it(`truncation: ${isFull ? 'all' : share}`, { timeout: 30 * minutes }, async () => {
      for (const { name: part, bytes } of parts()) {
        const stride = cutStrideOf(share, part);
        await overLanes(lanes, Math.ceil(bytes.length / stride), async (lane, index) => {
          const length = index * stride;
          lane.replace(part, bytes.subarray(0, length));
          await damageOf(lane.url, `${part} cut at ${length}`);
        });
        for (const lane of lanes) lane.replace(part, bytes);
      }
    });

    it('bytes that follow the end, and sectors of zeros and ones', { timeout: 5 * minutes }, async () => {
      for (const { name: part, bytes } of parts()) {
        const damaged: [string, Uint8Array][] = [1, 2, 7, 8, 56, 4096].map((extra) => {
          const longer = new Uint8Array(bytes.length + extra);
          longer.set(bytes);
          return [`${extra} bytes more`, longer];
        });
        for (let sector = 0; sector < bytes.length; sector += 512) {
          for (const fill of [0x00, 0xff]) {
            const copy = bytes.slice();
            copy.fill(fill, sector, sector + 512);
            if (Buffer.compare(copy, bytes) !== 0) damaged.push([`sector ${sector} all ${fill}`, copy]);
          }
        }
        await overLanes(lanes, damaged.length, async (lane, index) => {
          const [what, copy] = damaged[index] ?? ['', bytes];
          lane.replace(part, copy);
          await damageOf(lane.url, `${part}: ${what}`);
        });
        for (const lane of lanes) lane.replace(part, bytes);
      }
    });

    it('nothing any more when everything is back', async () => {
      for (const lane of lanes) await verifyCheckpoint(lane.url);
    });
  });
}
