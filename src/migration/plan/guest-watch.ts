/**
 * Watches what a guest writes for a while, and encodes some of its pages as the rounds of a migration would. The guest runs on; what its
 * tracker told stays with the machine's next checkpoint.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ChangeLog } from '../../checkpoint/change-log.ts';
import { blockPagesMax } from '../../limits.ts';
import type { DirtyTracker } from '../../memory/index.ts';
import { DeltaCache, PageDigests, PageSet } from '../../memory/index.ts';
import { common, copyOf, someOf, spreadOver } from './page-samples.ts';
import type { Look } from './report.ts';
import type { Sample, SampleEncoder } from './sample-encoder.ts';

export interface WatchOptions {
  readonly encoder: SampleEncoder;
  readonly pageCount: number;
  /** How long, milliseconds. */
  readonly ms: number;
  /** Bytes of pages that a migration would keep to send differences; 0: none. */
  readonly deltaCache: number;
  readonly signal: AbortSignal;
}

/** What pages of all memory take, and what a round takes besides. */
interface Costs {
  readonly all: Sample;
  /** Of an encoder that has few pages. */
  readonly fewMs: number;
  /** Of a round without any. */
  readonly roundBytes: number;
}

/** Pages, and the bytes that they add to a round. */
interface Added {
  readonly pages: number;
  readonly bytes: number;
}

/** What the guest wrote, and what samples took. */
export interface Watched extends Costs {
  readonly looks: readonly Look[];
  /** That were watched for all of them; undefined: all were. */
  readonly sampledPages: number | undefined;
  readonly hotPages: number | undefined;
  /** Pages that were written, whole. */
  readonly dirty: Added | undefined;
  /** Of pages that went again, as a difference; undefined: there were none. */
  readonly again: Added | undefined;
  /** What it costs to find that no page of the memory has changed; undefined: a tracker says so. */
  readonly compareMs: number | undefined;
}

const samplePages = 8192;
/** Where digests are compared: many places, so that little is missed, of some pages each, which are often written together. */
const watchedPages = 16_384;
export const watchedRun = 4;
const dirtySamplePages = 4096;
const fewPages = 64;
const times = 5;
/** Parts of the time at which is looked. What is written between the last two is compared with what was before. */
const looksAt = [1 / 16, 1 / 4, 1] as const;

/** With a tracker that may be asked while the guest runs. Rejects as the tracker and as a save; with the reason of `signal`. */
export async function watchTracked(tracker: DirtyTracker, options: WatchOptions): Promise<Watched> {
  const { encoder, pageCount, ms, deltaCache, signal } = options;
  const costs = await measureCosts(options, blocksOf(pageCount));
  const log = ChangeLog.of(tracker);
  await log.beginObserving();
  const begin = performance.now();
  const seen = new PageSet(pageCount);
  const looks: Look[] = [];
  const look = async (share: number): Promise<PageSet> => {
    await sleep(Math.max(begin + share * ms - performance.now(), 0), undefined, { signal });
    const found = await log.observe();
    seen.merge(found);
    looks.push({ ms: performance.now() - begin, pages: seen.count() });
    return found;
  };
  for (const share of looksAt.slice(0, -1)) await look(share);
  const early = copyOf(seen);
  const earlySome = someOf(early, dirtySamplePages);
  const deltas = deltaCache > 0 ? new DeltaCache(pageCount, deltaCache) : undefined;
  const encode = (set: PageSet): Promise<Added | undefined> =>
    encodeSome(encoder, set, costs.roundBytes, deltas);
  const first = await encode(earlySome);
  const late = await look(1);
  const dirty = first ?? (await encode(someOf(late, dirtySamplePages)));
  const again = first === undefined ? undefined : await encode(common(late, earlySome));
  return {
    ...costs,
    ...{ looks, sampledPages: undefined, dirty, compareMs: undefined },
    hotPages: hotPagesOf(early.count(), late.count(), common(early, late).count()),
    again: deltas === undefined ? undefined : again,
  };
}

/** Without: a sample of pages is compared with what it was. Rejects as `watchTracked`. */
export async function watchSampled(options: WatchOptions): Promise<Watched> {
  const { encoder, pageCount, ms, deltaCache, signal } = options;
  const blocks = blocksOf(pageCount);
  const noted = new PageDigests(pageCount);
  const costs = await measureCosts(options, blocks, noted);
  const equal = await median(() => encoder.encode(blocks, { pageDigests: noted }));
  const sample = spreadOver(pageCount, watchedPages, watchedRun);
  const sampledPages = sample.count();
  const scale = pageCount / sampledPages;
  const [atFirst, atLook] = [new PageDigests(pageCount), new PageDigests(pageCount)];
  await encoder.encode(sample, { pageDigests: atFirst });
  const { ms: spentMs } = await encoder.encode(sample, { pageDigests: atLook });
  const begin = performance.now() - spentMs / 2;
  const deltas = deltaCache > 0 ? new DeltaCache(pageCount, deltaCache) : undefined;
  const compare = async (pageDigests: PageDigests, cache?: DeltaCache): Promise<Sample> =>
    await encoder.encode(sample, { dedup: false, pageDigests, deltas: cache });
  const until = async (share: number): Promise<void> => {
    await sleep(Math.max(begin + share * ms - performance.now(), 0), undefined, { signal });
  };
  await until(looksAt[1]);
  const earlyMs = performance.now() - begin;
  const early = await compare(atLook, deltas);
  await until(1);
  const lateMs = performance.now() - begin;
  const late = await compare(atLook, deltas);
  const union = await compare(atFirst);
  // As it is: where the pages that have not changed are takes bytes, too.
  const idle = await compare(atLook);
  const both = Math.max(early.pages + late.pages - union.pages, 0);
  const hotPages = hotPagesOf(early.pages, late.pages, both);
  // What is left of the bytes when those pages are taken off that went for the first time.
  const added = ({ pages, bytes }: Sample): Added => ({ pages, bytes: Math.max(bytes - idle.bytes, 0) });
  const wholeBytes = added(early).bytes / Math.max(early.pages, 1);
  const againBytes = Math.max(added(late).bytes - (late.pages - both) * wholeBytes, 0);
  return {
    looks: [
      { ms: earlyMs, pages: scale * early.pages },
      { ms: lateMs, pages: scale * union.pages },
    ],
    ...costs,
    ...{
      sampledPages,
      compareMs: (pageCount / blocks.count()) * Math.max(equal.ms - costs.fewMs, equal.ms / 4),
    },
    hotPages: hotPages === undefined ? undefined : scale * hotPages,
    dirty: early.pages > 0 ? added(early) : late.pages > 0 ? added(late) : undefined,
    again: deltas === undefined || both === 0 ? undefined : { pages: both, bytes: againBytes },
  };
}

/** For a guest that stands still. */
export async function watchNothing(options: WatchOptions): Promise<Watched> {
  const costs = await measureCosts(options, blocksOf(options.pageCount));
  return {
    ...costs,
    ...{ looks: [], sampledPages: undefined, hotPages: undefined, dirty: undefined },
    ...{ again: undefined, compareMs: undefined },
  };
}

function blocksOf(pageCount: number): PageSet {
  return spreadOver(pageCount, samplePages, blockPagesMax);
}

/** Of `sample`; twice: the first time threads and buffers are new. `pageDigests`: where memory is compared with what was sent. */
async function measureCosts(
  { encoder, pageCount }: WatchOptions,
  sample: PageSet,
  pageDigests?: PageDigests,
): Promise<Costs> {
  await encoder.encode(sample);
  const all = await encoder.encode(sample, { pageDigests });
  const { ms: fewMs } = await median(() => encoder.encode(spreadOver(pageCount, fewPages, blockPagesMax)));
  const { bytes: roundBytes } = await encoder.encode(new PageSet(pageCount));
  return { all, fewMs, roundBytes };
}

/** Of some: what takes so short is easily held up. */
async function median(work: () => Promise<Sample>): Promise<Sample> {
  const samples: Sample[] = [];
  for (let time = 0; time < times; time += 1) samples.push(await work());
  return samples.sort((a, b) => a.ms - b.ms)[Math.floor(times / 2)] as Sample;
}

async function encodeSome(
  encoder: SampleEncoder,
  set: PageSet,
  roundBytes: number,
  deltas: DeltaCache | undefined,
): Promise<Added | undefined> {
  if (set.count() === 0) return undefined;
  const { pages, bytes } = await encoder.encode(set, { dedup: false, deltas });
  return pages === 0 ? undefined : { pages, bytes: Math.max(bytes - roundBytes, 0) };
}

/** If the pages that were written twice were met by chance, they were met among so many. */
function hotPagesOf(early: number, late: number, both: number): number | undefined {
  return both === 0 ? undefined : Math.max((early * late) / both, early, late);
}
