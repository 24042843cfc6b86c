/** A migration that is not done: everything is measured that decides how it would go, and nothing is changed. */
import { randomUUID } from 'node:crypto';
import { availableParallelism } from 'node:os';
import type { VirtualMachine } from '../../checkpoint/virtual-machine.ts';
import { CheckpointError } from '../../errors/index.ts';
import type { Digest64 } from '../../format/digest.ts';
import { pageBytes } from '../../limits.ts';
import { checkpointDigest } from '../../memory/digest.ts';
import type { EncodeOptions, GuestMemory } from '../../memory/index.ts';
import { connect, type LinkOptions } from '../../transport/index.ts';
import { offerOf } from '../offer.ts';
import type { SendProgress } from '../outcome.ts';
import { makePace } from '../source/pace.ts';
import { chooseTracker } from '../source/tracking.ts';
import { type ForecastSettings, forecastMigration } from './forecast.ts';
import { type Watched, watchedRun, watchNothing, watchSampled, watchTracked } from './guest-watch.ts';
import { probeLink } from './link-probe.ts';
import type { EncodingFacts, LinkFacts, MigrationForecast, MigrationPlan, WriteFacts } from './report.ts';
import { SampleEncoder } from './sample-encoder.ts';

export interface PlanSettings extends ForecastSettings {
  readonly link: LinkOptions;
  readonly streams: number;
  readonly bandwidth: number | undefined;
  readonly deltaCache: number;
  readonly encode: Pick<EncodeOptions, 'acceleration' | 'dedup' | 'threads'> & {
    readonly codec: 'lz4' | 'raw';
  };
  /** How long the guest's writes are watched, and how long the link is measured at most, milliseconds. */
  readonly windowMs: number;
  readonly signal: AbortSignal | undefined;
}

/** A destination ends longer ones. */
const linkMsMost = 3000;
const silentMs = 5000;
/** Fewer say little of what a page takes. */
const dirtyPagesSure = 256;
/** A round this much longer than the guest was watched is a guess. */
const stretchSure = 4;

type Report = (progress: Omit<SendProgress, 'elapsedMs'>) => void;

/** Rejects with `CHKPT_ABORTED`, as `probeLink`, and as the machine's tracker does. */
export async function planVm(
  vm: VirtualMachine,
  memory: GuestMemory,
  url: string,
  settings: PlanSettings,
  report: Report,
): Promise<MigrationPlan> {
  const begin = performance.now();
  const stop = new AbortController();
  const onAbort = (): void =>
    stop.abort(
      new CheckpointError('CHKPT_ABORTED', 'the plan was cancelled', { cause: settings.signal?.reason }),
    );
  settings.signal?.addEventListener('abort', onAbort, { once: true });
  if (settings.signal?.aborted) onAbort();
  try {
    const digest = await checkpointDigest();
    const tell = (phase: SendProgress['phase'], rate = 0): void =>
      report({
        ...{ phase, round: 0, pagesLeft: memory.pageCount, bytesSent: 0, rate, dirtyRate: 0 },
        ...{ predictedDowntimeMs: undefined, roundsLeft: undefined },
      });
    tell('connect');
    const link = await measureLink(vm, url, settings, digest, stop.signal);
    tell('watch', link.rate);
    const { running } = vm;
    const { watched, tracker } = await watchGuest(vm, memory, settings, digest, stop.signal);
    const dirty = writeFactsOf(watched, tracker);
    const encoding = encodingFactsOf(watched, settings);
    const canThrottle = vm.throttle !== undefined;
    const keptPages = Math.floor(settings.deltaCache / pageBytes);
    const forecast = forecastMigration(
      { pageCount: memory.pageCount, running, canThrottle, keptPages, ...dirty, ...encoding, ...link },
      settings,
    );
    return {
      url,
      memoryBytes: memory.pageCount * pageBytes,
      ...{ running, link, dirty, encoding, forecast },
      uncertain: doubts(memory.pageCount, dirty, encoding, forecast),
      elapsedMs: performance.now() - begin,
    };
  } catch (error) {
    stop.signal.throwIfAborted();
    throw error;
  } finally {
    settings.signal?.removeEventListener('abort', onAbort);
  }
}

async function measureLink(
  vm: VirtualMachine,
  url: string,
  { link, streams, bandwidth, windowMs }: PlanSettings,
  digest: Digest64,
  signal: AbortSignal,
): Promise<LinkFacts> {
  const name = randomUUID();
  return await probeLink({
    connectOne: (stream, count, stopped) =>
      connect(
        url,
        { kind: 'probe', migration: name, guest: vm.id, stream, streams: count },
        { ...link, signal: stopped, idleMs: silentMs },
      ),
    ...{ digest, streams, bandwidth, signal, pace: makePace(bandwidth) },
    ms: Math.min(windowMs, linkMsMost),
    description: await offerOf(vm, digest),
  });
}

async function watchGuest(
  vm: VirtualMachine,
  memory: GuestMemory,
  { encode, deltaCache, windowMs }: PlanSettings,
  digest: Digest64,
  signal: AbortSignal,
): Promise<{ readonly watched: Watched; readonly tracker: Pick<WriteFacts, 'kind' | 'reason'> }> {
  const encoder = new SampleEncoder({ digest, encode, memory: () => vm.memory ?? memory, signal });
  const canPay = encode.codec !== 'raw' && deltaCache >= pageBytes;
  const options = {
    ...{ encoder, pageCount: memory.pageCount, ms: windowMs, signal },
    deltaCache: canPay ? deltaCache : 0,
  };
  const choice = chooseTracker(vm, memory);
  try {
    const watched = !vm.running
      ? await watchNothing(options)
      : choice.tracker === undefined
        ? await watchSampled(options)
        : await watchTracked(choice.tracker, options);
    return { watched, tracker: choice.report };
  } finally {
    await choice.close();
  }
}

function writeFactsOf(
  { looks, sampledPages, hotPages }: Watched,
  { kind, reason }: Pick<WriteFacts, 'kind' | 'reason'>,
): WriteFacts {
  const last = looks.at(-1);
  return {
    ...{ kind, reason, looks, sampledPages, hotPages },
    pagesPerSecond: last === undefined ? 0 : (1000 * last.pages) / Math.max(last.ms, 1),
  };
}

function encodingFactsOf(watched: Watched, { encode }: PlanSettings): EncodingFacts {
  const { all, dirty, again, fewMs, roundBytes, compareMs = 0 } = watched;
  const bytesPerPage = all.blockBytes / Math.max(all.pages, 1);
  const dirtyBytesPerPage = dirty === undefined ? bytesPerPage : dirty.bytes / dirty.pages;
  // What an encoder costs in any case is no cost of pages; most of the time it is.
  const pagesMs = Math.max(all.ms - fewMs, all.ms / 2);
  return {
    codec: encode.codec,
    threads: encode.threads ?? availableParallelism(),
    sampledPages: all.pages,
    sampledDirtyPages: dirty?.pages ?? 0,
    ...{ bytesPerPage, dirtyBytesPerPage },
    againBytesPerPage:
      again === undefined ? dirtyBytesPerPage : Math.min(again.bytes / again.pages, dirtyBytesPerPage),
    pagesPerSecond: (1000 * all.pages) / Math.max(pagesMs, 0.01),
    // The destination has as much to do with it.
    roundMs: 2 * fewMs,
    readMs: compareMs,
    roundBytes,
  };
}

/** Why it may come otherwise. */
function doubts(
  pageCount: number,
  { looks, sampledPages, pagesPerSecond }: WriteFacts,
  { sampledDirtyPages }: EncodingFacts,
  { rounds }: MigrationForecast,
): string[] {
  const found: string[] = [];
  const last = looks.at(-1);
  if (last === undefined) return ['the guest stands still: what it writes when it runs is not known'];
  const longest = Math.max(...rounds.map(({ ms }) => ms), 0);
  if (longest > stretchSure * last.ms) {
    const [round, watched] = [longest, last.ms].map((ms) => `${(ms / 1000).toFixed(1)} s`);
    found.push(
      `the guest was watched for ${watched}, and a round takes ${round}: what it writes by then is a guess`,
    );
  }
  if (sampledPages !== undefined && sampledPages < pageCount) {
    const error = samplingError(last.pages / pageCount, sampledPages) * pageCount * (1000 / last.ms);
    found.push(
      `writes were looked for in ${sampledPages} of ${pageCount} pages: ${Math.round(pagesPerSecond)} ± ${Math.round(error)} pages/s`,
    );
  }
  if (last.pages > 0 && sampledDirtyPages < dirtyPagesSure) {
    found.push(`only ${sampledDirtyPages} written pages were there to see what they take`);
  }
  return found;
}

/** Two standard errors of a share, of runs whose pages are alike; of none that was met what would have been missed as often as not. */
function samplingError(share: number, sampledPages: number): number {
  const runs = Math.max(sampledPages / watchedRun, 1);
  const least = 1 / runs;
  const p = Math.min(Math.max(share, least), 1 - least);
  return 2 * Math.sqrt((p * (1 - p)) / runs);
}
