/** How a migration ends for its callers: reports, and the error that is no plain failure. */

import type { TrackerReport } from '../checkpoint/increment.ts';
import type { PhaseProgress } from '../checkpoint/operation.ts';
import { CheckpointError } from '../errors/index.ts';
import type { SafetyReport } from './source/safety-checkpoint.ts';

/** How far a migration is. Byte counts are of the wire. */
export interface SendProgress extends PhaseProgress {
  /** `watch`: of a plan. */
  readonly phase: 'connect' | 'watch' | 'memory' | 'stopped' | 'commit' | 'serve';
  readonly round: number;
  /** Pages that are still to be sent, as far as it is known. */
  readonly pagesLeft: number;
  /** Bytes sent so far. */
  readonly bytesSent: number;
  /** Bytes per second of the last round; 0: not known yet. */
  readonly rate: number;
  /** Bytes per second that the guest dirties, as they would be on the wire; 0: not known yet. */
  readonly dirtyRate: number;
  /** How long the guest would stand still if it were stopped now; undefined: not known yet. */
  readonly predictedDowntimeMs: number | undefined;
  /** Rounds until it may be stopped; undefined: not known, or never at this rate. */
  readonly roundsLeft: number | undefined;
}

/** One round of a migration. */
export interface RoundReport {
  readonly round: number;
  readonly pages: number;
  /** Of these, sent as their difference from what was sent before. */
  readonly deltaPages: number;
  readonly bytes: number;
  readonly ms: number;
  /** Pages that the guest wrote meanwhile. */
  readonly dirtyPages: number;
}

/** How long the guest stood still, milliseconds, and with what. */
export interface Downtime {
  readonly totalMs: number;
  /** Until it stood still. */
  readonly stopMs: number;
  /** Looking for the last pages, sending them and the state, until they were in place. */
  readonly pagesMs: number;
  /** Until the destination had set the state, and promised. */
  readonly prepareMs: number;
  /** COMMIT and OWN, until it ran and this end had heard of it. */
  readonly commitMs: number;
}

/** Who said what the guest has written, and what that has cost it. */
export interface TrackingReport extends TrackerReport {
  /** Until everything counted as clean, and for all looks together, the last one, while the guest stood still, included; milliseconds. */
  readonly armMs: number;
  readonly harvestMs: number;
  /** First writes of pages since the last look: at most so many, because what is told of a huge page is one. */
  readonly faults?: number | undefined;
  /** What one of them takes longer than another write, measured on other pages of this host; nanoseconds. */
  readonly faultNs?: number | undefined;
  /** How long threads of the guest have waited for that, all together and at most, milliseconds; undefined: `unknown` says why. */
  readonly stallMs?: number | undefined;
  readonly unknown?: string | undefined;
}

/** What `sendVm` did. The guest runs on the destination. */
export interface SendReport {
  /** UUID. */
  readonly migration: string;
  readonly url: string;
  readonly memoryBytes: number;
  readonly rounds: readonly RoundReport[];
  readonly downtime: Downtime;
  /** Pages that were sent after the guest ran at the destination; undefined: all were there before. */
  readonly postcopy: { readonly pages: number; readonly bytes: number; readonly ms: number } | undefined;
  /** The checkpoint that was kept before post-copy; undefined: none was asked for, or none was needed. */
  readonly safety: SafetyReport | undefined;
  /** Bytes on all connections. */
  readonly bytesSent: number;
  readonly tracker: TrackingReport;
  /** How much the guest was throttled at most, 0 to 1. */
  readonly throttledShare: number;
  /** How often the link was made anew. */
  readonly reconnects: number;
  /** Wall time, milliseconds. */
  readonly elapsedMs: number;
}

/** What `receiveVm` did. The guest runs here. */
export interface ReceiveReport {
  readonly migration: string;
  readonly url: string;
  readonly memoryBytes: number;
  /** Streams that were received and verified. */
  readonly streams: number;
  /** Where it came from. */
  readonly remote: string;
  /** Pages are still on the way; undefined: all are here. */
  readonly postcopy: ArrivingGuest | undefined;
  readonly elapsedMs: number;
}

/** A guest that runs here before all of its pages are here. */
export interface ArrivingGuest {
  /** How many were missing when it started. */
  readonly pages: number;
  /** Of them, not here yet. */
  left(): number;
  /** How often a thread of the guest has touched a page that was not there, pages of zeros included. */
  faults(): number;
  /** How long threads have waited for pages, microseconds; the first 65,536, as they came. */
  waits(): Uint32Array;
  /**
   * Resolves when all pages are here. Rejects when they never will be (`signal` of `receiveVm`, or the main thread has touched a missing page): then
   * the machine is stopped and refuses to run.
   */
  readonly resident: Promise<void>;
}

/** What may become of a migration in doubt. */
export interface InDoubt {
  /** UUID of the migration. */
  readonly migrationId: string;
  /**
   * Resolves when it is known where the guest runs. The migration goes on asking until then. `lost`, of a migration that was gone on with
   * from its journal: nobody has it.
   */
  resolve(): Promise<'moved' | 'stayed' | 'lost'>;
  /**
   * Takes the guest back. `fenced: true` is the caller's word that the other host cannot run it: cut off from power, disks and network.
   * With a witness that is asked instead. Rejects with `CHKPT_UNSUPPORTED` where the guest is not: after a restart.
   */
  forceLocal(word: { readonly fenced: true }): Promise<'moved' | 'stayed' | 'lost'>;
}

/**
 * COMMIT is durable, or the source was restarted, and the destination has not answered. The guest does not run here and may run there. It is no
 * failure, and must not be treated as one.
 */
export class MigrationInDoubtError extends CheckpointError implements InDoubt {
  readonly migrationId: string;
  readonly #inDoubt: InDoubt;

  constructor(inDoubt: InDoubt, store: string, cause: unknown) {
    super('CHKPT_IN_DOUBT', 'the destination does not answer, and may run the guest', {
      details: { store },
      ...(cause === undefined ? {} : { cause }),
    });
    this.name = 'MigrationInDoubtError';
    this.migrationId = inDoubt.migrationId;
    this.#inDoubt = inDoubt;
  }

  /** Also between two loaded copies of the package, as for `CheckpointError`; and for no other code. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return value instanceof CheckpointError && value.code === 'CHKPT_IN_DOUBT';
  }

  resolve(): Promise<'moved' | 'stayed' | 'lost'> {
    return this.#inDoubt.resolve();
  }

  forceLocal(word: { readonly fenced: true }): Promise<'moved' | 'stayed' | 'lost'> {
    return this.#inDoubt.forceLocal(word);
  }
}
