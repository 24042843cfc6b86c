/**
 * Watches what a guest writes for a while, and encodes some of its pages as the rounds of a migration would. The guest runs on; what its
 * tracker told stays with the machine's next checkpoint.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ChangeLog } from '../../checkpoint/change-log.ts';
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

/** What the guest wrote, and what samples took. */
export interface Watched {
  readonly looks: readonly Look[];
  readonly sampledPages: number;
  readonly hotPages: number | undefined;
  /** Of all memory. */
  readonly all: Sample;
  /** Pages that were written, whole. */
  readonly dirty: Sample | undefined;
  /** Bytes of a page that goes again, as a difference; undefined: none was seen. */
  readonly againBytesPerPage: number | undefined;
  /** What an encoder costs that has few pages. */
  readonly fewMs: number;
  /** What it costs to find that the sampled pages have not changed; undefined: a tracker says so. */
  readonly compareMs: number | undefined;
}

const samplePages = 8192;
const dirtySamplePages = 4096;
const fewPages = 64;
const fewTimes = 3;
/** Parts of the time at which is looked. What is written between the last two is compared with what was before. */
const looksAt = [1 / 16, 1 / 4, 1] as const;

/** With a tracker that may be asked while the guest runs. Rejects as the tracker and as a save; with the reason of `signal`. */
export async function watchTracked(tracker: DirtyTracker, options: WatchOptions): Promise<Watched> {
  const { encoder, pageCount, ms, deltaCache, signal } = options;
  const { all, fewMs } = await encodeAll(options);
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
  const first = await encodeSome(encoder, earlySome, deltas);
  const late = await look(1);
  const dirty = first ?? (await encodeSome(encoder, someOf(late, dirtySamplePages)));
  const again = first === undefined ? undefined : await encodeSome(encoder, common(late, earlySome), deltas);
  return {
    ...{ looks, sampledPages: all.pages, all, dirty, fewMs, compareMs: undefined },
    hotPages: hotPagesOf(early.count(), late.count(), common(early, late).count()),
    againBytesPerPage: deltas === undefined || again === undefined ? undefined : again.bytes / again.pages,
  };
}

/** Without: a sample of pages is compared with what it was. Rejects as `watchTracked`. */
export async function watchSampled(options: WatchOptions): Promise<Watched> {
  const { encoder, pageCount, ms, deltaCache, signal } = options;
  const sample = spreadOver(pageCount, samplePages);
  const scale = pageCount / sample.count();
  const [atFirst, atLook] = [new PageDigests(pageCount), new PageDigests(pageCount)];
  await encoder.encode(sample, { pageDigests: atFirst });
  const all = await encoder.encode(sample, { pageDigests: atLook });
  const begin = performance.now() - all.ms / 2;
  const fewMs = await encodeFew(options);
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
  const { ms: compareMs } = await compare(atLook);
  const both = Math.max(early.pages + late.pages - union.pages, 0);
  const hotPages = hotPagesOf(early.pages, late.pages, both);
  const againBytes = late.bytes - (late.pages - both) * (early.bytes / Math.max(early.pages, 1));
  return {
    looks: [
      { ms: earlyMs, pages: scale * early.pages },
      { ms: lateMs, pages: scale * union.pages },
    ],
    ...{ sampledPages: all.pages, all, fewMs, compareMs: Math.max(compareMs - fewMs, 0) },
    hotPages: hotPages === undefined ? undefined : scale * hotPages,
    dirty: early.pages > 0 ? early : late.pages > 0 ? late : undefined,
    againBytesPerPage: deltas === undefined || both === 0 ? undefined : Math.max(againBytes / both, 0),
  };
}

/** For a guest that stands still. */
export async function watchNothing(options: WatchOptions): Promise<Watched> {
  const { all, fewMs } = await encodeAll(options);
  return {
    ...{ looks: [], sampledPages: all.pages, hotPages: undefined, all, dirty: undefined },
    ...{ againBytesPerPage: undefined, fewMs, compareMs: undefined },
  };
}

/** Twice: the first time threads and buffers are new. */
async function encodeAll({
  encoder,
  pageCount,
}: WatchOptions): Promise<{ readonly all: Sample; readonly fewMs: number }> {
  const sample = spreadOver(pageCount, samplePages);
  await encoder.encode(sample);
  const all = await encoder.encode(sample);
  return { all, fewMs: await encodeFew({ encoder, pageCount }) };
}

/** What a small round takes besides its pages: the mean of some. */
async function encodeFew({
  encoder,
  pageCount,
}: Pick<WatchOptions, 'encoder' | 'pageCount'>): Promise<number> {
  let sum = 0;
  for (let time = 0; time < fewTimes; time += 1)
    sum += (await encoder.encode(spreadOver(pageCount, fewPages))).ms;
  return sum / fewTimes;
}

async function encodeSome(
  encoder: SampleEncoder,
  set: PageSet,
  deltas?: DeltaCache,
): Promise<Sample | undefined> {
  if (set.count() === 0) return undefined;
  const sample = await encoder.encode(set, { dedup: false, deltas });
  return sample.pages === 0 ? undefined : sample;
}

/** If the pages that were written twice were met by chance, they were met among so many. */
function hotPagesOf(early: number, late: number, both: number): number | undefined {
  return both === 0 ? undefined : Math.max((early * late) / both, early, late);
}
