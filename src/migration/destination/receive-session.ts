/**
 * The driver of the destination: carries out what `reduceDestination` says, and tells it what happens. It takes any number of links, one
 * after the other; the newest one counts.
 */
import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { VirtualMachine } from '../../checkpoint/virtual-machine.ts';
import { CheckpointError } from '../../errors/index.ts';
import type { Digest64 } from '../../format/digest.ts';
import type { ArrivingPages } from '../../memory/index.ts';
import { type Deferred, deferred } from '../../util/deferred.ts';
import type { Journal } from '../journal.ts';
import {
  type DestinationEffect,
  type DestinationEvent,
  type DestinationState,
  recoverDestination,
  reduceDestination,
} from '../protocol/destination.ts';
import type { DestinationRecord, Outcome, ProtocolOptions } from '../protocol/terms.ts';
import { aliveMs } from '../wire/deadlines.ts';
import {
  decodeStreamHead,
  decodeToDestination,
  encodeToSource,
  type ToDestination,
  type ToSource,
} from '../wire/messages.ts';
import { wrong } from '../wire/record.ts';
import type { RecordChannel } from '../wire/record-channel.ts';
import type { Witness } from '../witness.ts';
import { awaitData, type DestinationLink, dropLink, isOfThisEnd } from './destination-link.ts';
import type { Intake } from './intake.ts';
import { fetchPages } from './page-fetching.ts';

export interface ReceiveSettings {
  readonly digest: Digest64;
  /** How long a source that is gone is waited for before PREPARED, milliseconds. */
  readonly reconnectMs: number;
  /** How long the next connection for pages may take when one of a link is there, milliseconds. */
  readonly dataMs: number;
  readonly witness?: Witness | undefined;
  /** Throws when the machine that is offered is not the one that is here. */
  readonly checkOffer: (description: Uint8Array) => Promise<void>;
}

export type ReceiveOutcome = Outcome | 'dropped';

const retryMs = 300;
const persistPauseMs = 200;
/** How long a source has to hear why. */
const lastWordsMs = 100;
/** How long a source may be connected and offer nothing. */
const offerMs = 10_000;

export class ReceiveSession {
  readonly #vm: VirtualMachine;
  readonly #settings: ReceiveSettings;
  readonly #journal: Journal;
  readonly #intake: Intake;
  readonly #options: ProtocolOptions;
  readonly #outcome: Deferred<ReceiveOutcome> = deferred();
  readonly #told: Deferred = deferred();
  readonly #begun: Deferred = deferred();
  readonly #retry: NodeJS.Timeout;
  #state: DestinationState;
  /** A process before this one has taken part in the migration: this one has nothing of it but its journal. */
  readonly isRecovered: boolean;
  #link: DestinationLink | undefined;
  #end: Extract<ToDestination, { type: 'end' }> | undefined;
  #accepted = false;
  #failure: unknown;
  #startFailure: unknown;
  #hasPromised = false;
  #completing: Promise<void> | undefined;
  #dropping: Promise<void> = Promise.resolve();
  #waitTimer: NodeJS.Timeout | undefined;
  #fetching: Promise<void> | undefined;
  /** Post-copy: pages will never come. */
  #isLost = false;
  #offerTimer: NodeJS.Timeout | undefined;
  /** The newest record, from when it began to be written; another may follow. */
  #writing: Promise<void> | undefined;
  #hasBegun = false;

  constructor(vm: VirtualMachine, settings: ReceiveSettings, journal: Journal, intake: Intake) {
    this.#vm = vm;
    this.#settings = settings;
    this.#journal = journal;
    this.#intake = intake;
    this.#options = { postcopy: false, witness: settings.witness !== undefined };
    this.isRecovered = journal.last !== undefined;
    // A process that was restarted has the journal, and no memory.
    const { state, effects } = recoverDestination(
      journal.last as DestinationRecord | undefined,
      randomInt(1, 2 ** 47),
    );
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
    this.#retry = setInterval(() => this.dispatch({ type: 'retry' }), retryMs);
  }

  /** Resolves when the guest runs here, or never will. */
  get outcome(): Promise<ReceiveOutcome> {
    return this.#outcome.promise;
  }

  /** Post-copy: resolves when all pages are here, and rejects when they never will be; undefined: they came before the guest. */
  get fetching(): Promise<void> | undefined {
    return this.#fetching;
  }

  /** Resolves when the source has said that it knows. */
  get told(): Promise<void> {
    return this.#told.promise;
  }

  /** Resolves when an offer has come: whoever asks for a guest that is not here, and never was, begins nothing. */
  get begun(): Promise<void> {
    return this.#begun.promise;
  }

  /** An offer has come. */
  get hasBegun(): boolean {
    return this.#hasBegun;
  }

  /** Nothing of the migration is here. */
  get isIdle(): boolean {
    return this.#state.at === 'waiting';
  }

  /** Why the guest, which is here and whole, could not be let run. */
  get startFailure(): unknown {
    return this.#startFailure;
  }

  /** It has been told that all is here: the source may have committed. */
  get hasPromised(): boolean {
    return this.#hasPromised;
  }

  /** True while a source is connected. */
  get hasLink(): boolean {
    return this.#link !== undefined;
  }

  get failure(): unknown {
    return this.#failure;
  }

  /** Nothing may be asked any more. Of a migration in which nothing was promised no journal is kept. */
  async close(): Promise<void> {
    clearInterval(this.#retry);
    clearTimeout(this.#waitTimer);
    clearTimeout(this.#offerTimer);
    dropLink(this.#link);
    const isForgotten = this.#journal.isBlank && this.#writing === undefined;
    await (isForgotten ? this.#journal.remove() : this.#journal.close());
  }

  /** Before PREPARED, and afterwards behind a durable ABORTED; too late when the source has committed. */
  giveUp(error: unknown): void {
    this.#endWith(error, { type: 'giveUp' });
  }

  dispatch(event: DestinationEvent): void {
    const { state, effects } = reduceDestination(this.#state, event, this.#options);
    this.#state = state;
    this.#hasPromised ||= state.at === 'prepared';
    if (state.at === 'receiving') {
      clearTimeout(this.#offerTimer);
      this.#hasBegun = true;
      this.#begun.resolve();
    }
    for (const effect of effects) this.#carryOut(effect);
    this.#watchForSource();
  }

  /** A new control connection: what was there before is an older attempt. Resolves when it is gone. */
  async attach(control: RecordChannel, count: number): Promise<void> {
    dropLink(this.#link);
    const alive = setInterval(() => void control.send('alive').catch(() => undefined), aliveMs);
    const link: DestinationLink = { control, data: new Map(), count, alive };
    this.#intake.lanes = Math.max(1, count);
    this.#link = link;
    awaitData(link, this.#settings.dataMs);
    this.dispatch({ type: 'linkUp' });
    this.#intake.arriving?.wantAgain();
    if (this.isIdle) {
      clearTimeout(this.#offerTimer);
      this.#offerTimer = setTimeout(() => this.isIdle && dropLink(link), offerMs);
    }
    try {
      for (;;) {
        const record = await control.next();
        if (record.type === 'alive') continue;
        if (record.type !== 'control') throw wrong(`a ${record.type} record where control is`);
        await this.#received(decodeToDestination(record.payload), link);
        // Whoever asks faster than it takes answers waits.
        await control.drained();
      }
    } catch (error) {
      this.#noteFault(error);
    } finally {
      dropLink(link);
      if (this.#link === link) {
        this.#link = undefined;
        this.dispatch({ type: 'linkLost' });
      }
    }
  }

  /** A data connection of the newest link. Resolves when it is gone. */
  async attachData(channel: RecordChannel, index: number): Promise<void> {
    const link = this.#link;
    if (link === undefined || index > link.count || link.data.has(index)) return channel.destroy();
    link.data.set(index, channel);
    awaitData(link, this.#settings.dataMs);
    let placed = 0;
    try {
      for (;;) {
        const record = await channel.next();
        if (record.type === 'alive') continue;
        if (record.type === 'pages') {
          if (!this.#isArriving) throw wrong('pages that nobody waits for');
          this.#intake.arriving?.place(record.payload);
          placed += 1;
          await this.#say(link, { type: 'placed', count: placed });
          continue;
        }
        if (record.type !== 'streamBegin') throw wrong(`a ${record.type} record between two streams`);
        const head = decodeStreamHead(record.payload);
        const { at, session } = this.#state;
        const isWanted = at === 'receiving' || this.#isArriving;
        if (head.session !== session || !isWanted || !this.#accepted) {
          throw wrong('a stream that nobody waits for');
        }
        if (at === 'running' && head.kind !== 'memory') throw wrong('a state for a guest that runs');
        const root = await this.#intake.take(channel, head);
        if (root === undefined) continue;
        await this.#say(link, { type: 'got', session: head.session, stream: head.stream, root });
      }
    } catch (error) {
      const isLocal = await isOfThisEnd(error, channel);
      if (this.#link === link) {
        if (isLocal) this.#fail(error);
        else this.#noteFault(error);
      }
      // What was received goes, and says so on its own.
      if (this.#state.at === 'dropped') return;
      dropLink(link);
    }
  }

  /** A broken link is waited for; anything else ends what is being received. */
  #noteFault(error: unknown): void {
    const isLink =
      error instanceof CheckpointError &&
      ['CHKPT_LINK_LOST', 'CHKPT_TIMEOUT', 'CHKPT_CLOSED', 'CHKPT_ABORTED'].includes(error.code);
    if (!isLink) this.#fail(error);
  }

  #fail(error: unknown): void {
    this.#endWith(error, { type: 'failed' });
  }

  /** `error` is why, if the event ends it. */
  #endWith(error: unknown, event: DestinationEvent): void {
    const known = this.#failure;
    const { at } = this.#state;
    const ends = reduceDestination(this.#state, event, this.#options).state.at !== at;
    if (ends && known === undefined) {
      this.#failure = error;
      const code = error instanceof CheckpointError ? error.code : 'CHKPT_INTERNAL';
      const text = error instanceof Error ? error.message : String(error);
      if (this.#link !== undefined) void this.#say(this.#link, { type: 'reason', code, text });
    }
    this.dispatch(event);
  }

  async #received(message: ToDestination, link: DestinationLink): Promise<void> {
    switch (message.type) {
      case 'offer':
        // Whoever offers again after a broken link offers the same. What came over the old one is in its place, or not, but not about to be.
        await this.#intake.idle();
        try {
          await this.#settings.checkOffer(message.description);
        } catch (error) {
          this.#failure ??= error;
          this.dispatch({ type: 'message', message: { type: 'offer' } });
          const code = error instanceof CheckpointError ? error.code : 'CHKPT_INTERNAL';
          await this.#say(link, { type: 'reason', code, text: (error as Error).message });
          this.dispatch({ type: 'failed' });
          return;
        }
        this.#accepted = true;
        return this.dispatch({ type: 'message', message: { type: 'offer' } });
      case 'end':
        if (this.#state.at === 'receiving') this.#end = message;
        return this.dispatch({ type: 'message', message: { type: 'end', session: message.session } });
      case 'done':
        // What OWN was kept for has been said.
        if (this.#state.at === 'running') await this.#journal.note('told').catch(() => undefined);
        // A source that has nothing to give any more.
        if (this.#isArriving) this.#intake.arriving?.abort();
        return this.#told.resolve();
      case 'join':
        throw wrong('a second join');
      default:
        return this.dispatch({ type: 'message', message });
    }
  }

  #carryOut(effect: DestinationEffect): void {
    switch (effect.type) {
      case 'send':
        if (this.#link !== undefined) {
          const isOver = this.#isLost && effect.message.type === 'running';
          void this.#say(this.#link, isOver ? { type: 'mayHaveRun' } : effect.message);
        }
        return;
      case 'persist':
        this.#writing = this.#persist(effect.record);
        return;
      case 'verify':
        return void this.#verify();
      case 'claim':
        return void this.#claim();
      case 'startGuest':
        return void this.#start();
      case 'drop':
        this.#dropping = this.#drop();
        return;
      case 'settle':
        // `moved` is settled when the guest runs, and the others when nothing touches machine and journal any more.
        if (effect.outcome !== 'moved') void this.#settle(effect.outcome);
        return;
    }
  }

  async #settle(outcome: ReceiveOutcome): Promise<void> {
    await this.#dropping;
    for (let last: unknown; last !== this.#writing; await last) last = this.#writing;
    this.#outcome.resolve(outcome);
  }

  async #say(link: DestinationLink, message: ToSource): Promise<void> {
    await link.control.send('control', encodeToSource(message)).catch(() => undefined);
  }

  async #persist(record: DestinationRecord): Promise<void> {
    let isDurable = true;
    try {
      await this.#journal.append(record);
    } catch (error) {
      isDurable = false;
      if (record === 'prepared') this.#failure ??= error;
      await sleep(persistPauseMs);
    }
    this.dispatch({ type: isDurable ? 'persisted' : 'persistFailed', record });
  }

  async #verify(): Promise<void> {
    try {
      if (this.#end === undefined) throw wrong('no end');
      this.#completing = this.#intake.complete(this.#end);
      await this.#completing;
      this.dispatch({ type: 'verified' });
    } catch (error) {
      this.#fail(error);
    }
  }

  async #claim(): Promise<void> {
    const answer = (await this.#settings.witness?.claim('destination').catch(() => undefined)) ?? 'unknown';
    this.dispatch({ type: 'claimed', answer });
  }

  async #start(): Promise<void> {
    if (this.#intake.arriving !== undefined) {
      this.#fetching = this.#fetch(this.#intake.arriving);
      this.#fetching.catch(() => undefined);
    }
    try {
      this.#intake.arriving?.check();
      if (this.#end?.runs !== false) await this.#vm.resume();
    } catch (error) {
      // It is this host's all the same: whoever called sees a machine that holds the guest and does not run.
      this.#startFailure = error;
    }
    this.#outcome.resolve('moved');
  }

  /** Its guest runs here and waits for pages. */
  get #isArriving(): boolean {
    const { at, complete } = this.#state;
    return at === 'running' && !complete && !this.#isLost && this.#intake.arriving !== undefined;
  }

  /** Post-copy: the rest of its pages. */
  async #fetch(pages: ArrivingPages): Promise<void> {
    const say = async (message: ToSource): Promise<void> => {
      if (this.#link !== undefined) await this.#say(this.#link, message);
    };
    await fetchPages({
      vm: this.#vm,
      pages,
      ask: (wanted) => say({ type: 'want', pages: wanted }),
      onComplete: () => this.dispatch({ type: 'pagesComplete' }),
      onLost: async (failure) => {
        this.#failure ??= failure;
        this.#isLost = true;
        await say({ type: 'mayHaveRun' });
      },
      cut: () => {
        for (const channel of this.#link?.data.values() ?? []) channel.destroy();
      },
      idle: () => this.#intake.idle(),
      told: this.told,
    });
  }

  async #drop(): Promise<void> {
    const why = new CheckpointError('CHKPT_VM_FAILED', 'the guest that was being received never came', {
      cause: this.#failure,
    });
    const link = this.#link;
    // A source that finds a connection gone reads no further on the others.
    if (link !== undefined) await Promise.race([link.control.connection.closed, sleep(lastWordsMs)]);
    for (const channel of link?.data.values() ?? []) channel.destroy();
    await this.#completing?.catch(() => undefined);
    await this.#intake.idle();
    await this.#intake.drop(why);
  }

  /** Pages without an end are worth nothing when nobody comes back. */
  #watchForSource(): void {
    const waits = this.#link === undefined && this.#state.at === 'receiving';
    if (!waits) {
      clearTimeout(this.#waitTimer);
      this.#waitTimer = undefined;
      return;
    }
    this.#waitTimer ??= setTimeout(() => {
      this.#fail(new CheckpointError('CHKPT_LINK_LOST', 'the source went away and did not come back'));
    }, this.#settings.reconnectMs);
  }
}
