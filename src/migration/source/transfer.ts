/** What a source sends: rounds of pages while the guest runs, then the last pages and the state while it stands still. */
import { createHash } from 'node:crypto';
import { saveStates } from '../../checkpoint/machine-states.ts';
import type { VirtualMachine } from '../../checkpoint/virtual-machine.ts';
import { planOf } from '../../checkpoint/vm-plan.ts';
import type { SaveCheckpoint } from '../../context/save-checkpoint.ts';
import { CheckpointError } from '../../errors/index.ts';
import { Convergence, type ConvergenceOptions, type Forecast, type RoundFacts } from '../convergence.ts';
import type { RoundReport, SendProgress } from '../outcome.ts';
import type { ToDestination } from '../wire/messages.ts';
import type { RecordChannel } from '../wire/record-channel.ts';
import type { PageRounds } from './page-rounds.ts';
import type { SafetyCheckpoint } from './safety-checkpoint.ts';
import type { SourceLink } from './source-link.ts';
import { nextThrottle } from './throttle-steps.ts';

export interface TransferSettings {
  readonly convergence: ConvergenceOptions;
  /** How long pre-copy may take, milliseconds. */
  readonly totalMaxMs: number;
  readonly strategy: 'abort' | 'force' | 'postcopy';
  /** Rounds before post-copy; undefined: until it does not get better. */
  readonly precopyRounds: number | undefined;
  /** Kept before a guest goes over to post-copy. */
  readonly safety: SafetyCheckpoint | undefined;
  /** Connections for rounds; with post-copy one more is for pages that the guest waits for. */
  readonly lanes: number;
}

/** Moments of `performance.now()`. */
export interface Marks {
  stop?: number;
  stopped?: number;
  /** The last pages and the state are in place. */
  placed?: number;
  prepared?: number;
  running?: number;
}

export class Transfer {
  readonly #vm: VirtualMachine;
  readonly #rounds: PageRounds;
  readonly #settings: TransferSettings;
  readonly #report: (progress: Omit<SendProgress, 'elapsedMs'>) => void;
  readonly #begin = performance.now();
  readonly #convergence: Convergence;
  readonly description: Uint8Array;
  readonly marks: Marks = {};
  readonly rounds: RoundReport[] = [];
  /** The link that is there. */
  link: SourceLink | undefined;
  #bytesBefore = 0;
  /** Why the last link broke. */
  linkError: unknown;
  throttledShare = 0;
  readonly #ran: boolean;
  #forecast: Forecast | undefined;
  #round = 0;
  /** The guest starts at the destination before all of its pages are there. */
  #switches = false;
  readonly served = { pages: 0, bytes: 0, ms: 0 };

  constructor(
    vm: VirtualMachine,
    rounds: PageRounds,
    description: Uint8Array,
    settings: TransferSettings,
    report: (progress: Omit<SendProgress, 'elapsedMs'>) => void,
  ) {
    this.#vm = vm;
    this.#rounds = rounds;
    this.description = description;
    this.#settings = settings;
    this.#convergence = new Convergence(settings.convergence);
    this.#report = report;
    this.#ran = vm.running;
  }

  get bytesSent(): number {
    return this.#bytesBefore + (this.link?.bytesWritten ?? 0);
  }

  linkIsLost(): void {
    this.#bytesBefore = this.bytesSent;
    this.link = undefined;
    this.#rounds.urgent?.pause();
  }

  acknowledge(stream: number, root: Uint8Array): void {
    this.#rounds.acknowledge(stream, root);
  }

  /** Sends rounds until what is left fits the downtime. Rejects with `CHKPT_NO_CONVERGENCE`, `CHKPT_ABORTED`, and when the link breaks. */
  async precopy(link: SourceLink, session: number, signal: AbortSignal): Promise<void> {
    await this.#rounds.begin(session);
    this.#switches = false;
    for (;;) {
      signal.throwIfAborted();
      if (this.#round >= (this.#settings.precopyRounds ?? Number.POSITIVE_INFINITY)) {
        this.#switches = true;
        return;
      }
      const begin = performance.now();
      const lanes = link.data.slice(0, this.#settings.lanes);
      const { pages, deltaPages, bytes } = await this.#rounds.send(this.#round, session, lanes, signal);
      const ms = performance.now() - begin;
      const dirtyPages = await this.#rounds.look();
      signal.throwIfAborted();
      const facts: RoundFacts = { round: this.#round, pages, bytes, ms, dirtyPages };
      this.rounds.push({ ...facts, deltaPages });
      this.#round += 1;
      const forecast = this.#convergence.learn(facts);
      this.#forecast = forecast;
      this.#tell('memory');
      const decision = this.#convergence.decide(facts, forecast);
      if (decision === 'stop' || !this.#vm.running) return;
      if (performance.now() - this.#begin > this.#settings.totalMaxMs) return this.#giveUp();
      if (decision !== 'stalled') continue;
      if (this.#settings.strategy === 'postcopy') {
        this.#switches = true;
        return;
      }
      await this.#throttle();
    }
  }

  /** The guest stands still: sends what is left. Resolves to the message that says so. */
  async finish(
    link: SourceLink,
    session: number,
    signal: AbortSignal,
  ): Promise<Extract<ToDestination, { type: 'end' }>> {
    this.#tell('stopped');
    await this.#rounds.look();
    signal.throwIfAborted();
    const postcopy = this.#switches && this.#rounds.pendingPages > 0;
    if (postcopy) await this.#settings.safety?.save(signal);
    const first = this.#rounds.nextStream;
    const begin = performance.now();
    const saveState = (checkpoint: SaveCheckpoint): Promise<void> =>
      saveStates(this.#vm, planOf(this.#vm, []), checkpoint, { skip: [], parentUrl: undefined });
    const lanes = link.data.slice(0, this.#settings.lanes);
    const { pages, deltaPages, bytes, roots } = await (postcopy
      ? this.#rounds.sendState(this.#round, session, lanes[0] as RecordChannel, signal, saveState)
      : this.#rounds.send(this.#round, session, lanes, signal, saveState));
    this.marks.placed = performance.now();
    const ms = this.marks.placed - begin;
    this.rounds.push({ round: this.#round, pages, deltaPages, bytes, ms, dirtyPages: 0 });
    this.#round += 1;
    const hash = createHash('sha256');
    for (const root of roots) hash.update(Buffer.from(root, 'hex'));
    const root = hash.digest();
    return { type: 'end', session, first, count: roots.length, root, runs: this.#ran, postcopy };
  }

  /** The guest runs at the destination: sends the pages that it lacks, until it has all. Rejects when the link breaks. */
  async serve(link: SourceLink, session: number, signal: AbortSignal): Promise<void> {
    const begin = performance.now();
    this.#tell('serve');
    this.#rounds.resumeServing();
    try {
      const { pages, bytes } = await this.#rounds.serve(this.#round, session, link.data, signal);
      this.served.pages += pages;
      this.served.bytes += bytes;
    } finally {
      this.served.ms += performance.now() - begin;
    }
    this.#tell('serve');
  }

  want(pages: Float64Array): void {
    this.#rounds.urgent?.want(pages);
  }

  placed(count: number): void {
    this.#rounds.urgent?.placed(count);
  }

  /** Back to full speed. */
  async release(): Promise<void> {
    if (this.throttledShare > 0) await this.#vm.throttle?.(0);
  }

  async #throttle(): Promise<void> {
    const share = nextThrottle(this.throttledShare);
    if (this.#vm.throttle === undefined || share === this.throttledShare) return;
    this.throttledShare = share;
    await this.#vm.throttle(this.throttledShare);
    this.#convergence.restart();
  }

  #giveUp(): void {
    if (this.#settings.strategy === 'force') return;
    if (this.#settings.strategy === 'postcopy') {
      this.#switches = true;
      return;
    }
    throw new CheckpointError(
      'CHKPT_NO_CONVERGENCE',
      'the guest writes too fast for the downtime that is allowed',
      {
        details: {
          expected: `${Math.round(this.#settings.convergence.downtimeTargetMs)} ms`,
          actual: `${Math.round(this.#forecast?.downtimeMs ?? 0)} ms`,
        },
      },
    );
  }

  #tell(phase: SendProgress['phase']): void {
    const forecast = this.#forecast;
    this.#report({
      phase,
      round: this.#round,
      pagesLeft: this.#rounds.pendingPages,
      bytesSent: this.bytesSent,
      rate: forecast?.rate ?? 0,
      dirtyRate: forecast?.dirtyRate ?? 0,
      predictedDowntimeMs: forecast?.downtimeMs,
      roundsLeft: forecast?.roundsLeft,
    });
  }
}
