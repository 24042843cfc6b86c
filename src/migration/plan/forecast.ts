/**
 * What a migration would come to: its rounds, with the decisions of `Convergence`, over numbers that were measured. Pure arithmetic.
 */
import { Convergence, type ConvergenceOptions } from '../convergence.ts';
import { nextThrottle } from '../source/throttle-steps.ts';
import type { Look, MigrationForecast, RoundForecast } from './report.ts';

export interface ForecastInput {
  readonly pageCount: number;
  readonly running: boolean;
  /** The machine can be slowed down. */
  readonly canThrottle: boolean;
  /** Bytes per second on the wire. */
  readonly rate: number;
  readonly rttMs: number;
  readonly looks: readonly Look[];
  readonly hotPages: number | undefined;
  readonly bytesPerPage: number;
  readonly dirtyBytesPerPage: number;
  readonly againBytesPerPage: number;
  /** Pages that are kept as they were sent. */
  readonly keptPages: number;
  readonly pagesPerSecond: number;
  readonly roundMs: number;
  readonly roundBytes: number;
  /** All memory is compared with what was sent, in each round: more than 0. */
  readonly readMs: number;
}

export interface ForecastSettings {
  readonly convergence: ConvergenceOptions;
  readonly totalMaxMs: number;
  readonly strategy: 'abort' | 'force' | 'postcopy';
  readonly precopyRounds: number | undefined;
  /** Longest standstill; undefined: as long as it takes. */
  readonly downtimeMaxMs: number | undefined;
}

/** Between the last page and a guest that runs there, besides three round trips: states, and records of journals that are flushed. */
const handoverMs = 10;
const handoverTrips = 3;

/** Different pages that a guest writes in `ms`, by what it wrote in shorter times. */
export function writtenPages(looks: readonly Look[], ms: number, pageCount: number): number {
  let before: Look = { ms: 0, pages: 0 };
  let earlier = before;
  for (const look of looks) {
    if (ms <= look.ms) {
      const share = (ms - before.ms) / Math.max(look.ms - before.ms, 0.01);
      return Math.min(before.pages + share * (look.pages - before.pages), pageCount);
    }
    earlier = before;
    before = look;
  }
  if (before.pages === 0) return 0;
  // Beyond the last look it grows on as it grew to there: with the time at most, and not at all when the working set is complete.
  const grown =
    earlier.pages > 0 ? Math.log(before.pages / earlier.pages) / Math.log(before.ms / earlier.ms) : 1;
  const power = Math.min(Math.max(grown, 0), 1);
  return Math.min(before.pages * (ms / before.ms) ** power, pageCount);
}

export function forecastMigration(input: ForecastInput, settings: ForecastSettings): MigrationForecast {
  const plain = { ...settings, strategy: 'abort', precopyRounds: undefined } as const;
  const unaided = new Simulation({ ...input, canThrottle: false }, plain).run(true);
  return new Simulation(input, settings).run(unaided.outcome === 'moves');
}

class Simulation {
  readonly #input: ForecastInput;
  readonly #settings: ForecastSettings;
  readonly #convergence: Convergence;
  readonly #rounds: RoundForecast[] = [];
  /** Pages to be sent. */
  #pending: number;
  /** Sent in a round that was not of all pages. */
  #sentAgain = 0;
  #roundCount = 0;
  #totalMs = 0;
  #bytes = 0;
  #throttled = 0;

  constructor(input: ForecastInput, settings: ForecastSettings) {
    this.#input = input;
    this.#settings = settings;
    this.#convergence = new Convergence(settings.convergence);
    this.#pending = input.pageCount;
  }

  /** `converges`: of the same guest without any help. */
  run(converges: boolean): MigrationForecast {
    const end = this.#precopy();
    const { downtimeMaxMs } = this.#settings;
    const last = this.#stretch(this.#pending, this.#roundCount);
    const switched = end === 'postcopy' && this.#pending > 0;
    const downtimeMs = this.#handoverMs + (switched ? this.#input.rttMs : last.ms);
    const isTooLong =
      !switched && end !== 'stays' && downtimeMaxMs !== undefined && downtimeMs > downtimeMaxMs;
    const outcome = isTooLong ? 'stays' : end === 'postcopy' && !switched ? 'moves' : end;
    const stays = outcome === 'stays';
    const rate = this.#sendRate;
    const dirty = this.#rounds.at(-1);
    return {
      outcome,
      converges,
      limit: converges ? this.#bottleneck : this.#isHeldUp ? 'encoding' : 'writes',
      rounds: this.#rounds,
      roundCount: this.#roundCount,
      totalMs: this.#totalMs + (stays ? 0 : downtimeMs + (switched ? last.ms : 0)),
      bytes: Math.round(this.#bytes + (stays ? 0 : last.bytes)),
      downtimeMs,
      downtimeTargetMs: this.#settings.convergence.downtimeTargetMs,
      sendRate: rate,
      dirtyRate:
        dirty === undefined ? 0 : (1000 * dirty.dirtyPages * this.#bytesPerPage(this.#roundCount)) / dirty.ms,
      throttledShare: this.#throttled,
      missingPages: outcome === 'postcopy' ? Math.round(this.#pending) : 0,
    };
  }

  get #handoverMs(): number {
    return handoverMs + handoverTrips * this.#input.rttMs;
  }

  /** Of round 0, which decides how long it takes. */
  get #bottleneck(): 'link' | 'encoding' {
    const { bytesPerPage, rate, pagesPerSecond } = this.#input;
    return bytesPerPage / rate >= 1 / pagesPerSecond ? 'link' : 'encoding';
  }

  /** A round without any page takes too long to be the last one. */
  get #isHeldUp(): boolean {
    return this.#stretch(0, 1).ms >= this.#settings.convergence.downtimeTargetMs;
  }

  get #sendRate(): number {
    const { bytesPerPage, rate, pagesPerSecond } = this.#input;
    return Math.min(rate, pagesPerSecond * bytesPerPage);
  }

  /** Rounds until the guest is stopped, or given up: as `Transfer.precopy`. */
  #precopy(): MigrationForecast['outcome'] {
    const { precopyRounds = Number.POSITIVE_INFINITY, strategy, totalMaxMs } = this.#settings;
    for (;;) {
      if (this.#roundCount >= precopyRounds) return 'postcopy';
      const decision = this.#round();
      if (decision === 'stop') return 'moves';
      if (this.#totalMs > totalMaxMs) return this.#givenUp;
      if (decision !== 'stalled') continue;
      if (strategy === 'postcopy') return 'postcopy';
      if (!this.#slowDown()) {
        this.#idle();
        return this.#givenUp;
      }
    }
  }

  get #givenUp(): MigrationForecast['outcome'] {
    return { abort: 'stays', force: 'forced', postcopy: 'postcopy' }[
      this.#settings.strategy
    ] as MigrationForecast['outcome'];
  }

  #round(): 'stop' | 'goOn' | 'stalled' {
    const { looks, pageCount, running, readMs } = this.#input;
    const round = this.#roundCount;
    const pages = this.#pending;
    const { ms, bytes } = this.#stretch(pages, round);
    const dirty = running ? writtenPages(looks, ms * (1 - this.#throttled), pageCount) : 0;
    this.#rounds.push({
      pages: Math.round(pages),
      bytes: Math.round(bytes),
      ms,
      dirtyPages: Math.round(dirty),
    });
    this.#roundCount += 1;
    this.#totalMs += ms;
    this.#bytes += bytes;
    if (round > 0) this.#sentAgain = Math.max(this.#sentAgain, pages);
    this.#pending = dirty;
    // Without a tracker as many count as written as were sent.
    const facts = { round, pages, bytes, ms, dirtyPages: readMs > 0 ? pages : dirty };
    const decision = this.#convergence.decide(facts, this.#convergence.learn(facts));
    return running ? decision : 'stop';
  }

  /** What it takes to send pages. */
  #stretch(pages: number, round: number): { readonly ms: number; readonly bytes: number } {
    const { rate, rttMs, pagesPerSecond, roundMs, roundBytes, readMs } = this.#input;
    const bytes = roundBytes + pages * this.#bytesPerPage(round);
    const ms = 1000 * Math.max(bytes / rate, pages / pagesPerSecond) + readMs + roundMs + rttMs;
    return { ms, bytes };
  }

  #bytesPerPage(round: number): number {
    const { bytesPerPage, dirtyBytesPerPage, againBytesPerPage, hotPages, keptPages } = this.#input;
    if (round === 0) return bytesPerPage;
    const kept = Math.min(this.#sentAgain, keptPages);
    const again = hotPages === undefined ? 0 : Math.min(kept / Math.max(hotPages, 1), 1);
    return again * againBytesPerPage + (1 - again) * dirtyBytesPerPage;
  }

  #slowDown(): boolean {
    if (!this.#input.canThrottle) return false;
    const share = nextThrottle(this.#throttled);
    if (share === this.#throttled) return false;
    this.#throttled = share;
    this.#convergence.restart();
    return true;
  }

  /** Nothing changes any more until time is up. */
  #idle(): void {
    const { ms, bytes } = this.#stretch(this.#pending, this.#roundCount);
    const rounds = Math.max(Math.ceil((this.#settings.totalMaxMs - this.#totalMs) / ms), 0);
    this.#roundCount += rounds;
    this.#totalMs += rounds * ms;
    this.#bytes += rounds * bytes;
  }
}
