/**
 * The driver of the source: carries out what `reduceSource` says, and tells it what happens. All decisions about who owns the guest are
 * the reducer's; this file knows links, tasks, timers and the machine.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { VirtualMachine } from '../../checkpoint/virtual-machine.ts';
import { CheckpointError } from '../../errors/index.ts';
import type { Digest64 } from '../../format/digest.ts';
import { type Deferred, deferred } from '../../util/deferred.ts';
import type { Journal } from '../journal.ts';
import {
  initialSource,
  reduceSource,
  type SourceEffect,
  type SourceEvent,
  type SourceState,
} from '../protocol/source.ts';
import type { Outcome, ProtocolOptions, SourceRecord } from '../protocol/terms.ts';
import { decodeToSource, type ToSource } from '../wire/messages.ts';
import type { Witness } from '../witness.ts';
import { sayCancelled } from './farewell.ts';
import { SourceGuest } from './source-guest.ts';
import { type ConnectOne, SourceLink } from './source-link.ts';
import type { Transfer } from './transfer.ts';

export interface SendSettings {
  readonly connectOne: ConnectOne;
  readonly connections: number;
  /** How long a broken link is waited for, milliseconds. */
  readonly reconnectMs: number;
  /** How long the guest may stand still before the migration is given up, milliseconds; undefined: as long as it takes. */
  readonly downtimeMaxMs: number | undefined;
  /** How long pre-copy may take, milliseconds. */
  readonly totalMaxMs: number;
  /** How long after COMMIT the destination may be silent before that is called in doubt, milliseconds. */
  readonly inDoubtMs: number;
  readonly witness?: Witness | undefined;
}

const retryMs = 300;
const reconnectPauseMs = 100;
const reconnectPauseMost = 2000;
/** How long the news of a broken link may take. */
const linkNewsMs = 200;
const persistPauseMs = 200;

/** Where nothing is left to do. */
const finalPlaces: ReadonlySet<SourceState['at']> = new Set(['released', 'stayed', 'gone']);

export class SendSession {
  readonly #guest: SourceGuest;
  readonly #settings: SendSettings;
  readonly #journal: Journal;
  readonly #transfer: Transfer;
  readonly #digest: Digest64;
  #options: ProtocolOptions;
  /** Over which pages are served: for each link once. */
  #servedLink: SourceLink | undefined;
  #state: SourceState = initialSource;
  #link: SourceLink | undefined;
  #linkCount = 0;
  #task: { readonly stop: AbortController; readonly done: Promise<void> } | undefined;
  #resuming: Promise<void> | undefined;
  /** The destination has, or had, something of the guest. */
  #hadSession = false;
  #isRefused = false;
  /** It may have promised to keep the guest, and then waits for a word. */
  #hasEnded = false;
  /** Messages that say that it goes on. */
  #progress = 0;
  #lastProgress = performance.now();
  #failure: unknown;
  #reason: string | undefined;
  readonly #over = new AbortController();
  readonly #first: Deferred<Outcome> = deferred();
  readonly #final: Deferred<Outcome> = deferred();
  #stopTimer: NodeJS.Timeout | undefined;
  #doubtTimer: NodeJS.Timeout | undefined;

  constructor(
    vm: VirtualMachine,
    settings: SendSettings,
    journal: Journal,
    transfer: Transfer,
    digest: Digest64,
  ) {
    this.#guest = new SourceGuest(vm);
    this.#settings = settings;
    this.#journal = journal;
    this.#transfer = transfer;
    this.#digest = digest;
    this.#options = { postcopy: false, witness: settings.witness !== undefined };
  }

  /** Why the guest stayed, as far as it is known. */
  get failure(): unknown {
    return this.#failure;
  }

  /** What the destination said of its own accord. */
  get reason(): string | undefined {
    return this.#reason ?? (this.#isRefused ? 'the destination did not want the guest' : undefined);
  }

  get reconnects(): number {
    return Math.max(0, this.#linkCount - 1);
  }

  /** Resolves with the first outcome; `inDoubt` is not the last one. */
  async run(signal: AbortSignal | undefined): Promise<Outcome> {
    const onAbort = (): void => {
      const why = new CheckpointError('CHKPT_ABORTED', 'the migration was cancelled', {
        cause: signal?.reason,
      });
      this.#endWith(why, { type: 'cancel' });
    };
    const late = setTimeout(() => {
      this.fail(new CheckpointError('CHKPT_TIMEOUT', 'the destination does not take what is sent'));
    }, this.#settings.totalMaxMs + this.#settings.reconnectMs);
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted) onAbort();
    else this.dispatch({ type: 'start' });
    const retry = setInterval(() => this.dispatch({ type: 'retry' }), retryMs);
    void this.#keepLinked();
    void this.#final.promise.then(() => clearInterval(retry));
    try {
      return await this.#first.promise;
    } finally {
      clearTimeout(late);
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** The last outcome. */
  get final(): Promise<Outcome> {
    return this.#final.promise;
  }

  dispatch(event: SourceEvent): void {
    const { state, effects } = reduceSource(this.#state, event, this.#options);
    const before = this.#state.at;
    this.#state = state;
    if (state.at !== before) this.#entered(state.at);
    for (const effect of effects) this.#carryOut(effect);
  }

  /** Something that the guest can stay for has gone wrong. */
  fail(error: unknown): void {
    this.#endWith(error, { type: 'failed' });
  }

  /** `error` is why, if the event ends it. */
  #endWith(error: unknown, event: SourceEvent): void {
    const { at } = this.#state;
    const known = this.#failure;
    this.#failure ??= error;
    this.dispatch(event);
    if (this.#state.at === at) this.#failure = known;
  }

  #entered(at: SourceState['at']): void {
    const { downtimeMaxMs, inDoubtMs } = this.#settings;
    if (at === 'stopping' && downtimeMaxMs !== undefined) {
      this.#stopTimer = setTimeout(() => {
        this.fail(new CheckpointError('CHKPT_TIMEOUT', `the guest stood still for ${downtimeMaxMs} ms`));
      }, downtimeMaxMs);
    } else if (at !== 'stopped') clearTimeout(this.#stopTimer);
    // From here on it is not this host's to run, whoever asks.
    if (at === 'committing') this.#fence();
    if (at === 'inDoubt') {
      this.#doubtTimer = setTimeout(() => this.dispatch({ type: 'deadline' }), inDoubtMs);
    } else clearTimeout(this.#doubtTimer);
    if (at === 'aborting') void this.#stopTask();
  }

  #carryOut(effect: SourceEffect): void {
    switch (effect.type) {
      case 'send':
        this.#send(effect.message);
        return;
      case 'persist':
        void this.#persist(effect.record);
        return;
      case 'transfer':
        this.#begin(async (link, signal) => {
          const { session = 0 } = this.#state;
          await this.#transfer.precopy(link, session, signal);
          signal.throwIfAborted();
          this.dispatch({ type: 'converged' });
        });
        return;
      case 'stopGuest':
        this.#begin(async () => {
          const { marks } = this.#transfer;
          marks.stop = performance.now();
          await this.#guest.pause();
          marks.stopped = performance.now();
          this.dispatch({ type: 'guestStopped' });
        });
        return;
      case 'finish':
        this.#hasEnded = true;
        this.#begin(async (link, signal) => {
          const end = await this.#transfer.finish(link, effect.session, signal);
          this.#options = { ...this.#options, postcopy: end.postcopy };
          if (end.postcopy) await this.#journal.note('postcopy');
          await link.send(end);
        });
        return;
      case 'resumeGuest':
        this.#resuming = this.#guest.goOn().catch((error: unknown) => {
          this.#failure = error;
        });
        return;
      case 'destroyGuest':
        void this.#guest.markMoved();
        return;
      case 'claim':
        void this.#claim();
        return;
      case 'settle':
        void this.#settle(effect.outcome);
        return;
      case 'serve':
        this.#serve();
        return;
      case 'refuseCancel':
        return;
    }
  }

  #send(message: Extract<SourceEffect, { type: 'send' }>['message']): void {
    // `end` says what was sent; the task that has sent it says so.
    if (message.type === 'end') return;
    const whole =
      message.type === 'offer' ? { ...message, description: this.#transfer.description } : message;
    this.#link?.send(whole).catch(() => undefined);
  }

  async #persist(record: SourceRecord): Promise<void> {
    let isDurable = true;
    try {
      await this.#journal.append(record);
    } catch (error) {
      isDurable = false;
      if (record === 'begin' || record === 'commit') this.#failure ??= error;
      await sleep(persistPauseMs);
    }
    this.dispatch({ type: isDurable ? 'persisted' : 'persistFailed', record });
  }

  /** Pages for a guest that runs at the destination, over each new link again. */
  #serve(): void {
    const link = this.#link;
    if (link === undefined || this.#servedLink === link) return;
    this.#servedLink = link;
    this.#begin(async (at, signal) => {
      try {
        await this.#transfer.serve(at, this.#state.session ?? 0, signal);
      } catch (error) {
        // There is no way back: whatever it was is tried again over another link.
        if (!signal.aborted) at.destroy();
        throw error;
      }
    });
  }

  /** One task at a time: the one before is stopped, and has let go of memory and link. */
  #begin(work: (link: SourceLink, signal: AbortSignal) => Promise<void>): void {
    const before = this.#stopTask();
    const stop = new AbortController();
    const link = this.#link;
    const done = before.then(async () => {
      if (link === undefined || stop.signal.aborted) return;
      try {
        await work(link, stop.signal);
      } catch (error) {
        if (stop.signal.aborted) return;
        // A broken link is told by the link itself, a moment after whoever was writing has seen it.
        await Promise.race([link.lost, sleep(linkNewsMs, undefined, { ref: false })]);
        if (!link.isLost && !stop.signal.aborted) this.fail(error);
      }
    });
    this.#task = { stop, done };
  }

  /** Resolves when the task has let go of memory, tracker and link. */
  async #stopTask(): Promise<void> {
    const task = this.#task;
    task?.stop.abort(new CheckpointError('CHKPT_ABORTED', 'this part of the migration is over'));
    await task?.done;
  }

  #fence(): void {
    try {
      this.#guest.fence();
    } catch (error) {
      this.#failure ??= error;
    }
  }

  async #claim(): Promise<void> {
    const answer = (await this.#settings.witness?.claim('source').catch(() => undefined)) ?? 'unknown';
    this.dispatch({ type: 'claimed', answer });
  }

  async #settle(outcome: Outcome): Promise<void> {
    if (outcome === 'inDoubt') return this.#first.resolve(outcome);
    const { at } = this.#state;
    await this.#resuming;
    if (at === 'serving') await this.#guest.markMoved();
    // The destination need not wait for questions.
    if (at === 'released') await this.#link?.send({ type: 'done' }).catch(() => undefined);
    await this.#link?.close();
    this.#over.abort();
    await this.#stopTask();
    clearTimeout(this.#doubtTimer);
    clearTimeout(this.#stopTimer);
    await this.#forget(at);
    this.#first.resolve(outcome);
    this.#final.resolve(outcome);
  }

  /** Of a migration that came to nothing, and of which the destination knows that or has nothing, no journal is kept. */
  async #forget(at: SourceState['at']): Promise<void> {
    const { connectOne, reconnectMs } = this.#settings;
    if (at !== 'stayed') return await this.#journal.close();
    if (this.#isRefused || !this.#hadSession) return await this.#journal.remove();
    const heard = sayCancelled(connectOne, reconnectMs, this.#digest);
    if (!this.#hasEnded) await this.#journal.remove();
    void heard.then((isHeard) => (isHeard ? this.#journal.remove() : this.#journal.close()));
  }

  async #keepLinked(): Promise<void> {
    const { connectOne, connections, reconnectMs } = this.#settings;
    let pauseMs = reconnectPauseMs;
    while (!this.#over.signal.aborted && !finalPlaces.has(this.#state.at)) {
      const progressed = this.#progress;
      try {
        const link = await SourceLink.connect(connectOne, connections, this.#digest, this.#over.signal);
        this.#linkCount += 1;
        this.#link = link;
        this.#transfer.link = link;
        this.dispatch({ type: 'linkUp' });
        await this.#listen(link);
        this.#transfer.linkIsLost();
        this.#link = undefined;
        if (this.#over.signal.aborted) return;
        await this.#stopTask();
        this.dispatch({ type: 'linkLost' });
      } catch (error) {
        if (this.#over.signal.aborted) return;
        this.#transfer.linkError = error;
        // Whoever could never connect has a wrong address, or no right to.
        if (this.#linkCount === 0 || !isLinkFault(error)) this.fail(error);
      }
      if (progressed !== this.#progress) {
        this.#lastProgress = performance.now();
        pauseMs = reconnectPauseMs;
      } else if (performance.now() - this.#lastProgress > reconnectMs) {
        this.fail(this.#transfer.linkError);
        // Its pages are here, and it waits for them there.
        if (this.#state.at === 'serving') this.#first.resolve('inDoubt');
      }
      await sleep(pauseMs, undefined, { signal: this.#over.signal }).catch(() => undefined);
      pauseMs = Math.min(2 * pauseMs, reconnectPauseMost);
    }
  }

  /** Reads control messages until the link is gone. */
  async #listen(link: SourceLink): Promise<void> {
    const reading = (async () => {
      for (;;) {
        const record = await link.control.next();
        if (record.type === 'alive') continue;
        if (record.type !== 'control') throw new CheckpointError('CHKPT_PEER_PROTOCOL', 'no control message');
        this.#received(decodeToSource(record.payload));
      }
    })();
    this.#transfer.linkError = new CheckpointError(
      'CHKPT_LINK_LOST',
      'the connection to the destination broke',
    );
    try {
      await Promise.race([reading, link.lost]);
    } catch (error) {
      this.#transfer.linkError = error;
      if (!isLinkFault(error)) this.fail(error);
    }
    link.destroy();
    await reading.catch(() => undefined);
  }

  #received(message: ToSource): void {
    switch (message.type) {
      case 'got':
        this.#progress += 1;
        if (message.session === this.#state.session) this.#transfer.acknowledge(message.stream, message.root);
        return;
      case 'want':
        this.#transfer.want(message.pages);
        return;
      case 'placed':
        this.#transfer.placed(message.count);
        return;
      case 'reason':
        this.#reason = `${message.code}: ${message.text}`;
        return;
      default:
        this.#progress += 1;
        if (message.type === 'accept') {
          this.#hadSession = true;
          this.#isRefused = false;
        }
        if (message.type === 'dropped' || message.type === 'aborted') this.#isRefused = true;
        if (message.type === 'prepared') {
          this.#transfer.marks.prepared ??= performance.now();
          if (this.#state.at === 'stopped' && this.#guest.isRunning) {
            const what = 'the guest was let run while it was being handed over';
            this.fail(new CheckpointError('CHKPT_VM_RUNNING', what));
            return;
          }
        }
        if (message.type === 'running') this.#transfer.marks.running ??= performance.now();
        this.dispatch({ type: 'message', message });
        // Of a link that was made anew.
        if (message.type === 'running' && this.#state.at === 'serving') this.#serve();
    }
  }
}

/** The link is broken, and may be made anew. */
function isLinkFault(error: unknown): boolean {
  return (
    error instanceof CheckpointError &&
    (error.code === 'CHKPT_LINK_LOST' || error.code === 'CHKPT_TIMEOUT' || error.code === 'CHKPT_CLOSED')
  );
}
