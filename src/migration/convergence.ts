/**
 * When a guest is stopped: what pre-copy does after each round. Pure arithmetic over what was measured; `docs/migration.md` has the rules.
 *
 * A round is sent at some rate r (bytes of the wire per second, until the destination has acknowledged them) while the guest dirties d
 * pages per second. What is left after it takes t = pages × bytes per page ÷ r to send, and what a round costs however small it is. It
 * converges when d × bytes per page < r.
 */

/** What one round was. */
export interface RoundFacts {
  readonly round: number;
  /** Pages that were sent. */
  readonly pages: number;
  /** Bytes on the wire. */
  readonly bytes: number;
  /** From its first byte to its last acknowledgement, milliseconds. */
  readonly ms: number;
  /** Pages that the guest has written meanwhile: what the next round has to send. */
  readonly dirtyPages: number;
}

export interface ConvergenceOptions {
  /** How long the guest may stand still, milliseconds. */
  readonly downtimeTargetMs: number;
  /** Part of the downtime that does not depend on pages (state, commit), as far as it is known, milliseconds. */
  readonly fixedMs: number;
  /** Rounds without progress before throttling or the strategy, where the forecast says that it does not converge. */
  readonly patience: number;
  readonly roundsMax: number;
}

/** What a forecast says. */
export interface Forecast {
  /** Bytes per second on the wire. */
  readonly rate: number;
  /** Bytes per second that the guest dirties, as they would be on the wire. */
  readonly dirtyRate: number;
  /** If the guest stopped now, milliseconds. */
  readonly downtimeMs: number;
  /** Whether rounds get shorter. */
  readonly converges: boolean;
  /** Rounds until the downtime is reached, when it converges and nothing changes. */
  readonly roundsLeft: number | undefined;
}

export type Decision =
  /** What is left fits. */
  | 'stop'
  | 'goOn'
  /** It does not get less: slow the guest down, or do what the strategy says. */
  | 'stalled';

const pageBytes = 4096;
/** A page costs at least its number and class. */
const pageBytesLeast = 8;
/** What is measured of rounds: an estimator that new facts are put into. */
export class Convergence {
  readonly #options: ConvergenceOptions;
  /** Bytes per millisecond, of the newest of the large rounds; a much smaller one tells what a round costs besides. */
  #rate = 0;
  /** Of the largest round. */
  #rateBytes = 0;
  /** What a round costs however few its pages, milliseconds. */
  #fixedMs: number;
  #isMeasured = false;
  #stalls = 0;
  #least = Number.POSITIVE_INFINITY;

  constructor(options: ConvergenceOptions) {
    this.#options = options;
    this.#fixedMs = options.fixedMs;
  }

  /** A round is over: what it says of link and guest. */
  learn(facts: RoundFacts): Forecast {
    const { bytes, ms } = facts;
    const rate = Math.max(bytes, 1) / Math.max(ms, 0.01);
    if (4 * bytes >= this.#rateBytes || rate > this.#rate) {
      this.#rate = rate;
      this.#rateBytes = Math.max(bytes, this.#rateBytes);
    } else {
      const rest = ms - bytes / this.#rate;
      // What is measured first counts for more than what was guessed.
      const mean = this.#isMeasured ? 0.5 * this.#fixedMs + 0.5 * rest : rest;
      this.#fixedMs = Math.max(this.#options.fixedMs, mean);
      this.#isMeasured = true;
    }
    return this.#forecast(facts);
  }

  decide(facts: RoundFacts, forecast: Forecast): Decision {
    const { downtimeTargetMs, patience, roundsMax } = this.#options;
    if (forecast.downtimeMs <= downtimeTargetMs) return 'stop';
    if (facts.round + 1 >= roundsMax) return 'stalled';
    // Less than ever before is progress, however little.
    this.#stalls = facts.dirtyPages < this.#least * 0.95 ? 0 : this.#stalls + 1;
    this.#least = Math.min(this.#least, facts.dirtyPages);
    return this.#stalls >= patience ? 'stalled' : 'goOn';
  }

  /** The guest was slowed down: what was seen before does not count. */
  restart(): void {
    this.#stalls = 0;
    this.#least = Number.POSITIVE_INFINITY;
  }

  #forecast({ pages, bytes, ms, dirtyPages }: RoundFacts): Forecast {
    // Of few pages little can be said: a whole page each.
    const perPage = pages < 64 ? pageBytes : Math.max(bytes / pages, pageBytesLeast);
    const dirtyRate = (dirtyPages * perPage) / Math.max(ms, 0.01);
    const { downtimeTargetMs } = this.#options;
    const pagesMs = (dirtyPages * perPage) / this.#rate;
    const downtimeMs = this.#fixedMs + pagesMs;
    const ratio = dirtyRate / this.#rate;
    const room = Math.max(downtimeTargetMs - this.#fixedMs, 0.1);
    const converges = ratio < 1 && this.#fixedMs < downtimeTargetMs;
    return {
      rate: this.#rate * 1000,
      dirtyRate: dirtyRate * 1000,
      downtimeMs,
      converges,
      roundsLeft: roundsLeft(converges, pagesMs, room, ratio),
    };
  }
}

function roundsLeft(converges: boolean, pagesMs: number, room: number, ratio: number): number | undefined {
  if (!converges) return undefined;
  if (pagesMs <= room || ratio === 0) return 0;
  return Math.ceil(Math.log(room / pagesMs) / Math.log(ratio));
}
