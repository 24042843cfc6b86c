/** What a plan found out, and what it foretells. Rates are per second, times milliseconds, byte counts those of the wire. */
import type { TrackerReport } from '../../checkpoint/increment.ts';

/** The way to the destination, as it was for a moment. */
export interface LinkFacts {
  readonly streams: number;
  /** Bytes per second that the destination got over all of them, no more than `bandwidth`. */
  readonly rate: number;
  /** There and back on a link without load, median. */
  readonly rttMs: number;
  /** What was measured with. */
  readonly bytes: number;
  readonly ms: number;
}

/** Different pages that were written in so long a time. */
export interface Look {
  readonly ms: number;
  readonly pages: number;
}

/** What the guest wrote while it was watched. */
export interface WriteFacts extends TrackerReport {
  /** From the beginning of the time: the working set grows slower than time. The last one is of all of it; none: the guest stands still. */
  readonly looks: readonly Look[];
  /** Different pages per second, over the whole time. */
  readonly pagesPerSecond: number;
  /** Pages that were watched for all of them; undefined: all were. */
  readonly sampledPages: number | undefined;
  /** Of pages that are written again and again, how many there seem to be; undefined: none was written twice. */
  readonly hotPages: number | undefined;
}

/** What a sample of pages came to in the encoder of a migration. */
export interface EncodingFacts {
  readonly codec: 'lz4' | 'raw';
  readonly threads: number;
  /** Pages spread over memory, and pages of those that were written. */
  readonly sampledPages: number;
  readonly sampledDirtyPages: number;
  /** Bytes of a page of all memory. */
  readonly bytesPerPage: number;
  /** Of a page that was written. */
  readonly dirtyBytesPerPage: number;
  /** Of one that was sent before, and goes as its difference. */
  readonly againBytesPerPage: number;
  readonly pagesPerSecond: number;
  /** What a round costs besides its pages; `readMs`: all memory is compared with what was sent. */
  readonly roundMs: number;
  readonly readMs: number;
  readonly roundBytes: number;
}

export interface RoundForecast {
  readonly pages: number;
  readonly bytes: number;
  readonly ms: number;
  /** Written meanwhile. */
  readonly dirtyPages: number;
}

export interface MigrationForecast {
  /**
   * `moves`: stopped within the target; `forced`: stopped at the time limit, for longer; `postcopy`: goes on at the destination before all of its
   * pages are there; `stays`: `CHKPT_NO_CONVERGENCE`, or `CHKPT_TIMEOUT` with `downtimeMaxMs`.
   */
  readonly outcome: 'moves' | 'forced' | 'postcopy' | 'stays';
  /** Without being slowed down and without strategy. */
  readonly converges: boolean;
  /** What keeps it from being faster: bytes on the link, pages in the encoder (or reading them all), or that the guest writes as fast as either. */
  readonly limit: 'link' | 'encoding' | 'writes';
  /** While the guest runs; of a guest that does not converge those until that is known. */
  readonly rounds: readonly RoundForecast[];
  readonly roundCount: number;
  /** Until the guest runs at the destination, or it is given up; with post-copy until all pages are there. */
  readonly totalMs: number;
  readonly bytes: number;
  /** If it `stays`: what it would be at the end. */
  readonly downtimeMs: number;
  readonly downtimeTargetMs: number;
  /** Bytes per second that can be sent, and that the guest dirties in the last round, as they would be sent. */
  readonly sendRate: number;
  readonly dirtyRate: number;
  /** How much the guest is slowed down at most, 0 to 1. */
  readonly throttledShare: number;
  /** Post-copy: pages that are missing when it starts. */
  readonly missingPages: number;
}

/** What `sendVm` with `plan` resolves to. Nothing has changed: neither the guest, nor the destination, nor journals. */
export interface MigrationPlan {
  readonly url: string;
  readonly memoryBytes: number;
  /** Whether the guest ran. */
  readonly running: boolean;
  readonly link: LinkFacts;
  readonly dirty: WriteFacts;
  readonly encoding: EncodingFacts;
  readonly forecast: MigrationForecast;
  /** Why it may come otherwise, sentences for people. */
  readonly uncertain: readonly string[];
  readonly elapsedMs: number;
}
