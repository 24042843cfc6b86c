/** What a caller may say about a lazy load, and what it is told. Guarantees and costs: docs/lazy-load.md. */
import { threadsMax } from '../limits.ts';
import type { LazyCounts } from '../memory/index.ts';
import type { SharedImage } from './shared-image.ts';

export interface LazyOptions {
  /**
   * Threads of the background fill, 1 to 64; default 2, and 4 where JavaScript reads the store: each has one read of at most 4 MiB under way.
   */
  readonly fillThreads?: number | undefined;
  /** Most bytes of guest memory that the fill brings in a second; default: no limit. Faults are not limited. */
  readonly fillBytesPerSecond?: number | undefined;
  /**
   * How long the fill waits for the guest to ask first, milliseconds. Default 0; 1000 while a working set is recorded, because
   * what the fill has brought the guest does not ask for.
   */
  readonly fillDelayMs?: number | undefined;
  /**
   * `record` keeps which blocks the guest asked for, in order, in a file; `replay` fetches these first. Default file: the path
   * of a `file:` or `dir:` store with `.workingset` behind it.
   */
  readonly workingSet?: WorkingSetOption | undefined;
  /**
   * What an access to a page that cannot be loaded is: `hold` (default) keeps its thread waiting until the machine was told,
   * `poison` is then a SIGBUS, for a VMM that handles it (Linux 6.6).
   */
  readonly damage?: 'hold' | 'poison' | undefined;
  /** The memory of the machine is a clone of this image; without other options. */
  readonly image?: SharedImage | undefined;
}

export type WorkingSetMode = 'record' | 'replay';
export type WorkingSetOption = WorkingSetMode | { readonly mode: WorkingSetMode; readonly path: string };

/** How memory was loaded. */
export type LazyOutcome =
  | { readonly active: true; readonly load: LazyLoad }
  /** Everything was loaded at once: lazy was not asked for, or not possible. */
  | { readonly active: false; readonly reason: string };

/** A load that goes on while the guest runs. */
export interface LazyLoad {
  /**
   * Resolves when all memory is there and the root digest of the whole checkpoint was verified. Rejects with what went wrong:
   * the machine was paused and refuses to run and to be saved. Rejects with `CHKPT_CLOSED` when the machine was closed before.
   */
  readonly resident: Promise<ResidentReport>;
  /** What became of the recorded working set. */
  readonly replay: { readonly blocks: number; readonly reason?: string | undefined };
  counts(): LazyCounts;
  /** Writes the working set of the guest so far. Throws `TypeError` when it is not recorded. Also done when all is there. */
  saveWorkingSet(): Promise<void>;
}

export interface ResidentReport extends LazyCounts {
  /** Root digest, hexadecimal, verified. */
  readonly root: string;
  /** Since the load began, milliseconds. */
  readonly elapsedMs: number;
}

export const fillThreadsDefault = 2;

/** Options with their defaults. */
export interface LazySettings {
  /** Undefined: as many as fit the store. */
  readonly fillThreads: number | undefined;
  readonly fillBytesPerSecond: number;
  readonly fillDelayMs: number;
  readonly workingSet: WorkingSetOption | undefined;
  readonly damage: 'hold' | 'poison';
  readonly image?: SharedImage | undefined;
}

/** Throws `TypeError`, `RangeError`. */
export function checkLazyOptions(lazy: boolean | LazyOptions | undefined): LazySettings | undefined {
  if (lazy === undefined || lazy === false) return undefined;
  const given = lazy === true ? {} : lazy;
  const { image } = given;
  if (image !== undefined && Object.values(given).some((value) => value !== undefined && value !== image)) {
    throw new TypeError('what an image is filled with is said when it is opened');
  }
  const { workingSet, damage = 'hold', fillThreads, fillBytesPerSecond = 0 } = given;
  const isRecording = workingSet !== undefined && modeOf(workingSet) === 'record';
  const { fillDelayMs = isRecording ? 1000 : 0 } = given;
  const threads = fillThreads ?? fillThreadsDefault;
  if (!Number.isInteger(threads) || threads < 1 || threads > threadsMax) {
    throw new RangeError(`fillThreads must be 1 to ${threadsMax}`);
  }
  if (!Number.isSafeInteger(fillBytesPerSecond) || fillBytesPerSecond < 0) {
    throw new RangeError('fillBytesPerSecond must be an integer, not negative');
  }
  if (!Number.isInteger(fillDelayMs) || fillDelayMs < 0 || fillDelayMs > 1e9) {
    throw new RangeError('fillDelayMs must be 0 to 1e9');
  }
  if (damage !== 'hold' && damage !== 'poison') throw new TypeError("damage must be 'hold' or 'poison'");
  return { fillThreads, fillBytesPerSecond, fillDelayMs, workingSet, damage, image };
}

/** Throws `TypeError`. */
export function modeOf(option: WorkingSetOption): WorkingSetMode {
  const mode = typeof option === 'string' ? option : option.mode;
  if (mode !== 'record' && mode !== 'replay') throw new TypeError("workingSet must be 'record' or 'replay'");
  return mode;
}
