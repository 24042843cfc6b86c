/** Real checkpoints, of values and memory, as the segments that a store is given: for stores that look inside. */
import {
  GuestMemory,
  type MemoryFrameSource,
  type MemoryRegion,
  openCheckpoint,
  PageEncoder,
} from '../../src/index.ts';
import type { CommitSummary, Segment, Store, StoreWriter } from '../../src/store/index.ts';
import { noise, type SampleSegment, type SampleStream } from '../store/support/sample-stream.ts';
import type { SuiteStreams } from './store.suite.ts';

type Contexts = Readonly<Record<string, Readonly<Record<string, number | string | Uint8Array>>>>;

/** Keeps the calls of one save. */
class Recorder implements Store {
  readonly url = 'recorder:';
  stream: SampleStream | undefined;

  async openWriter(): Promise<StoreWriter> {
    const segments: SampleSegment[] = [];
    let current: Segment = { kind: 'start', name: 'start' };
    let pieces: Uint8Array[] = [];
    return {
      beginSegment: async (segment) => {
        current = segment;
        pieces = [];
      },
      write: async (bytes) => void pieces.push(bytes.slice()),
      endSegment: async (summary) => {
        segments.push({ segment: current, bytes: Uint8Array.from(Buffer.concat(pieces)), summary });
      },
      commit: async (summary: CommitSummary) => {
        const bytes = Buffer.concat(segments.map((segment) => segment.bytes));
        this.stream = { segments, bytes, summary };
      },
      abort: async () => undefined,
    };
  }

  async openReader(): Promise<never> {
    throw new Error('what is recorded is not read');
  }
}

/** Memory comes behind the first context. */
async function record(uuid: string, contexts: Contexts, memory?: GuestMemory): Promise<SampleStream> {
  const recorder = new Recorder();
  const checkpoint = await openCheckpoint(recorder, { mode: 'save', uuid, createdMs: 1_700_000_000_000 });
  for (const [index, [name, values]] of Object.entries(contexts).entries()) {
    const context = await checkpoint.openContext(name);
    await context.saveAll(values);
    await context.close();
    if (index > 0 || memory === undefined) continue;
    // As what a store reads back is encoded.
    const encoder = new PageEncoder(memory, { codec: 'raw' });
    const frames: MemoryFrameSource = { regions: encoder.regions, open: (...at) => encoder.open(...at) };
    await checkpoint.saveMemory('memory', frames);
  }
  await checkpoint.commit();
  if (recorder.stream === undefined) throw new Error('nothing was saved');
  return recorder.stream;
}

async function memoryOf(regions: readonly MemoryRegion[], seed: string): Promise<GuestMemory> {
  const memory = GuestMemory.allocate(regions);
  for (const [index, { base, bytes }] of memory.regions.entries()) {
    for (let page = 0n; page < bytes / 4096n; page += 9n)
      memory.write(base + page * 4096n, noise(`${seed}/${index}/${page}`, 4096));
  }
  return memory;
}

const uuidOf = (index: number): string => `0f0e0d0c-0b0a-4908-8706-${String(index).padStart(12, '0')}`;

/** `regions`: memory that the store can keep. */
export async function nativeStreams(regions: readonly MemoryRegion[]): Promise<SuiteStreams> {
  const [first, second] = [await memoryOf(regions, 'older'), await memoryOf(regions, 'newer')];
  const plain = (seed: string): Contexts => ({ a: { seed, raw: noise(seed, 333) }, b: {} });
  const others: SampleStream[] = [];
  for (let index = 0; index < 20; index += 1)
    others.push(await record(uuidOf(100 + index), plain(`save ${index}`), index % 5 === 0 ? second : first));
  const again = [
    await record(uuidOf(1), plain('a'), second),
    await record(uuidOf(1), plain('b')),
    await record(uuidOf(1), plain('c'), first),
  ];
  const devices = Array.from({ length: 300 }, (_, index) => [`device ${(index * 7) % 300}`, { index }]);
  const streams = {
    // What stands before memory is more than a reader is ahead: memory is read by who reads on.
    older: await record(uuidOf(1), { ...plain('older'), a: { raw: noise('long', 400_000) } }, first),
    newer: await record(
      uuidOf(2),
      {
        'Ünïcode "quoted" \\ name': { one: 1 },
        long: { raw: noise('long', 70_001), name: 'x'.repeat(4097) },
        after: {},
      },
      second,
    ),
    again,
    others,
    many: await record(uuidOf(3), Object.fromEntries(devices)),
    large: await record(uuidOf(4), { large: { raw: noise('large', 4 * 1024 * 1024) } }),
  };
  for (const memory of [first, second]) await memory.close();
  return streams;
}
