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
import { type ConnectOne, SourceLink } from './source-link.ts';
import type { Transfer } from './transfer.ts';

export interface SendSettings {
  readonly connectOne: ConnectOne;
  readonly connections: number;
  /** How long a broken link is waited for, milliseconds. */
  readonly reconnectMs: number;
  /** How long the guest may stand still before it is given up, milliseconds. */
  readonly downtimeMaxMs: number;
  /** How long after COMMIT the destination may be silent before that is called in doubt, milliseconds. */
  readonly inDoubtMs: number;
  readonly witness?: Witness | undefined;
  readonly postcopy: boolean;
}

const retryMs = 300;
const reconnectPauseMs = 100;
const persistPauseMs = 200;

/** Where nothing is left to do. */
const finalPlaces: ReadonlySet<SourceState['at']> = new Set(['released', 'stayed', 'gone']);

export class SendSession {
  readonly #vm: VirtualMachine;
  readonly #settings: SendSettings;
  readonly #journal: Journal;
  readonly #transfer: Transfer;
  readonly #digest: Digest64;
  readonly #options: ProtocolOptions;
  readonly #wasRunning: boolean;
  #state: SourceState = initialSource;
  #link: SourceLink | undefined;
  #linkCount = 0;
  #task: { readonly stop: AbortController; readonly done: Promise<void> } | undefined;
  /** Of who it was that the last `accept` came from. */
  #lastSession: number | undefined;
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
    this.#vm = vm;
    this.#settings = settings;
    this.#journal = journal;
    this.#transfer = transfer;
    this.#digest = digest;
    this.#options = { postcopy: settings.postcopy, witness: settings.witness !== undefined };
    this.#wasRunning = vm.running;
  }

  /** Why the guest stayed, as far as it is known. */
  get failure(): unknown {
    return this.#failure;
  }

  /** What the destination said of its own accord. */
  get reason(): string | undefined {
    return this.#reason;
  }

  get reconnects(): number {
    return Math.max(0, this.#linkCount - 1);
  }

  /** Resolves with the first outcome; `inDoubt` is not the last one. */
  async run(signal: AbortSignal | undefined): Promise<Outcome> {
    const onAbort = (): void => {
      this.#failure ??= new CheckpointError('CHKPT_ABORTED', 'the migration was cancelled', {
        cause: signal?.reason,
      });
      this.dispatch({ type: 'cancel' });
    };
    if (signal?.aborted) onAbort();
    else this.dispatch({ type: 'start' });
    signal?.addEventListener('abort', onAbort, { once: true });
    const retry = setInterval(() => this.dispatch({ type: 'retry' }), retryMs);
    void this.#keepLinked();
    void this.#final.promise.then(() => clearInterval(retry));
    try {
      return await this.#first.promise;
    } finally {
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
    this.#failure ??= error;
    this.dispatch({ type: 'failed' });
  }

  #entered(at: SourceState['at']): void {
    const { downtimeMaxMs, inDoubtMs } = this.#settings;
    if (at === 'stopping') {
      this.#stopTimer = setTimeout(() => {
        this.fail(new CheckpointError('CHKPT_TIMEOUT', `the guest stood still for ${downtimeMaxMs} ms`));
      }, downtimeMaxMs);
    } else if (at !== 'stopped') clearTimeout(this.#stopTimer);
    if (at === 'inDoubt') {
      this.#transfer.marks.committed = performance.now();
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
          const isNew = this.#lastSession !== this.#state.session;
          this.#lastSession = this.#state.session;
          await this.#transfer.precopy(link, this.#state.session ?? 0, isNew, signal);
          this.dispatch({ type: 'converged' });
        });
        return;
      case 'stopGuest':
        this.#begin(async () => {
          this.#transfer.marks.stop = performance.now();
          if (this.#vm.running) await this.#vm.pause();
          this.#transfer.marks.stopped = performance.now();
          this.dispatch({ type: 'guestStopped' });
        });
        return;
      case 'finish':
        this.#begin(async (link, signal) => {
          await link.send(await this.#transfer.finish(link, effect.session, signal));
        });
        return;
      case 'resumeGuest':
        void this.#resume();
        return;
      case 'destroyGuest':
        this.#markMoved();
        return;
      case 'claim':
        void this.#claim();
        return;
      case 'settle':
        void this.#settle(effect.outcome);
        return;
      case 'refuseCancel':
      case 'serve':
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
    try {
      await this.#journal.append(record);
      this.dispatch({ type: 'persisted', record });
    } catch (error) {
      this.#failure ??= error;
      await sleep(persistPauseMs);
      this.dispatch({ type: 'persistFailed', record });
    }
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
        // A broken link is told by the link itself.
        if (stop.signal.aborted) return;
        if (isLinkFault(error)) return link.destroy();
        this.fail(error);
      }
    });
    this.#task = { stop, done };
  }

  async #stopTask(): Promise<void> {
    const task = this.#task;
    this.#task = undefined;
    task?.stop.abort(new CheckpointError('CHKPT_ABORTED', 'this part of the migration is over'));
    await task?.done;
  }

  async #resume(): Promise<void> {
    await this.#stopTask();
    try {
      if (this.#wasRunning && !this.#vm.running) await this.#vm.resume();
    } catch (error) {
      this.#failure = error;
    }
  }

  /** I1: it never runs here again. */
  #markMoved(): void {
    const moved = new CheckpointError('CHKPT_VM_MOVED', 'the guest was moved to another host');
    this.#vm.beginLoad();
    void Promise.resolve(this.#vm.endLoad(moved)).catch(() => undefined);
  }

  async #claim(): Promise<void> {
    const answer = (await this.#settings.witness?.claim('source').catch(() => undefined)) ?? 'unknown';
    this.dispatch({ type: 'claimed', answer });
  }

  async #settle(outcome: Outcome): Promise<void> {
    await this.#stopTask();
    if (outcome === 'inDoubt') return this.#first.resolve(outcome);
    // The destination need not wait for questions.
    const { at } = this.#state;
    if (at === 'released') await this.#link?.send({ type: 'done' }).catch(() => undefined);
    if (at === 'stayed') await this.#resume();
    await this.#link?.close();
    this.#over.abort();
    clearTimeout(this.#doubtTimer);
    clearTimeout(this.#stopTimer);
    await this.#journal.close();
    this.#first.resolve(outcome);
    this.#final.resolve(outcome);
  }

  async #keepLinked(): Promise<void> {
    let lostAt = performance.now();
    while (!this.#over.signal.aborted && !finalPlaces.has(this.#state.at)) {
      try {
        const { connectOne, connections } = this.#settings;
        this.#link = await SourceLink.connect(connectOne, connections, this.#digest, this.#over.signal);
      } catch (error) {
        if (this.#over.signal.aborted) return;
        const isLate = performance.now() - lostAt > this.#settings.reconnectMs;
        // Whoever could never connect has a wrong address, or no right to.
        if (this.#linkCount === 0 || isLate || !isLinkFault(error)) this.fail(error);
        await sleep(reconnectPauseMs, undefined, { signal: this.#over.signal }).catch(() => undefined);
        continue;
      }
      this.#linkCount += 1;
      this.#transfer.links.push(this.#link);
      const link = this.#link;
      this.#over.signal.addEventListener('abort', () => link.destroy(), { once: true });
      this.dispatch({ type: 'linkUp' });
      await this.#listen(link);
      lostAt = performance.now();
      if (this.#over.signal.aborted) return;
      this.#link = undefined;
      await this.#stopTask();
      this.dispatch({ type: 'linkLost' });
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
        if (message.session === this.#state.session) this.#transfer.acknowledge(message.stream, message.root);
        return;
      case 'reason':
        this.#reason = `${message.code}: ${message.text}`;
        return;
      default:
        if (message.type === 'prepared') this.#transfer.marks.prepared ??= performance.now();
        if (message.type === 'running') this.#transfer.marks.running ??= performance.now();
        this.dispatch({ type: 'message', message });
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
