/**
 * The driver of a source that was restarted: it has the journal of the process before it, and no guest. It asks the destination, says
 * COMMIT to one that is prepared, and carries out what else `reduceSource` says in those states.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { CheckpointError } from '../../errors/index.ts';
import type { Digest64 } from '../../format/digest.ts';
import { type Deferred, deferred } from '../../util/deferred.ts';
import type { Journal } from '../journal.ts';
import {
  recoverSource,
  reduceSource,
  type SourceEffect,
  type SourceEvent,
  type SourceState,
} from '../protocol/source.ts';
import type { Outcome, ProtocolOptions, SourceRecord } from '../protocol/terms.ts';
import { decodeToSource, isOfProtocol } from '../wire/messages.ts';
import { type ConnectOne, SourceLink } from './source-link.ts';

const retryMs = 300;
const persistPauseMs = 200;
const reconnectPauseMs = 100;
const reconnectPauseMost = 2000;

export class OrphanSession {
  readonly #journal: Journal;
  readonly #connectOne: ConnectOne;
  readonly #digest: Digest64;
  readonly #options: ProtocolOptions;
  #state: SourceState;
  #link: SourceLink | undefined;
  #linkError: unknown;
  #hasStopped = false;
  readonly #over = new AbortController();
  readonly #first: Deferred<Outcome> = deferred();
  readonly #final: Deferred<Outcome> = deferred();
  readonly #retry: NodeJS.Timeout;

  /** `journal`: its last record is `begin` or `commit`. Owned from now on. */
  constructor(journal: Journal, connectOne: ConnectOne, digest: Digest64) {
    this.#journal = journal;
    this.#connectOne = connectOne;
    this.#digest = digest;
    // A witness is asked only by who has a guest to take back.
    this.#options = { postcopy: journal.notes.has('postcopy'), witness: false };
    this.#state = recoverSource(journal.last as SourceRecord | undefined);
    this.#final.promise.catch(() => undefined);
    this.#retry = setInterval(() => this.#dispatch({ type: 'retry' }), retryMs);
    void this.#keepLinked();
  }

  /** The first outcome: `moved`, `lost`; or `inDoubt`, which is not the last one. */
  get first(): Promise<Outcome> {
    return Promise.race([this.#first.promise, this.#final.promise]);
  }

  /** `moved` or `lost`. Rejects when it is stopped before. */
  get final(): Promise<Outcome> {
    return this.#final.promise;
  }

  /** Why there is no link. */
  get linkError(): unknown {
    return this.#linkError;
  }

  /** Asks no more; the migration stays as the journal says. */
  async stop(error: unknown): Promise<void> {
    if (this.#hasStopped) return;
    this.#hasStopped = true;
    clearInterval(this.#retry);
    this.#over.abort();
    this.#link?.destroy();
    await this.#journal.close();
    this.#final.reject(error);
  }

  #dispatch(event: SourceEvent): void {
    if (this.#hasStopped) return;
    const { state, effects } = reduceSource(this.#state, event, this.#options);
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
  }

  #carryOut(effect: SourceEffect): void {
    switch (effect.type) {
      case 'send':
        // It has neither pages nor a description to offer.
        if (effect.message.type === 'offer' || effect.message.type === 'end') return;
        void this.#link?.send(effect.message).catch(() => undefined);
        return;
      case 'persist':
        void this.#persist(effect.record);
        return;
      case 'settle':
        void this.#settle(effect.outcome);
        return;
      default:
        // All others are of a guest.
        return;
    }
  }

  async #persist(record: SourceRecord): Promise<void> {
    let isDurable = true;
    try {
      await this.#journal.append(record);
    } catch (error) {
      isDurable = false;
      this.#linkError = error;
      await sleep(persistPauseMs);
    }
    this.#dispatch({ type: isDurable ? 'persisted' : 'persistFailed', record });
  }

  async #settle(outcome: Outcome): Promise<void> {
    if (outcome === 'inDoubt') return this.#first.resolve(outcome);
    this.#hasStopped = true;
    clearInterval(this.#retry);
    // The destination need not wait for questions.
    if (outcome === 'moved' || outcome === 'lost')
      await this.#link?.send({ type: 'done' }).catch(() => undefined);
    await this.#link?.close();
    this.#over.abort();
    await this.#journal.close();
    this.#final.resolve(outcome);
  }

  async #keepLinked(): Promise<void> {
    let pauseMs = reconnectPauseMs;
    const { signal } = this.#over;
    while (!signal.aborted) {
      try {
        const link = await SourceLink.connect(this.#connectOne, 0, this.#digest, signal);
        this.#link = link;
        this.#dispatch({ type: 'linkUp' });
        await this.#listen(link, () => {
          pauseMs = reconnectPauseMs;
        });
      } catch (error) {
        if (signal.aborted) return;
        this.#linkError = error;
      }
      this.#link?.destroy();
      this.#link = undefined;
      this.#dispatch({ type: 'linkLost' });
      await sleep(pauseMs, undefined, { signal }).catch(() => undefined);
      pauseMs = Math.min(2 * pauseMs, reconnectPauseMost);
    }
  }

  /** Rejects when the link is gone. */
  async #listen(link: SourceLink, onMessage: () => void): Promise<never> {
    for (;;) {
      const record = await link.control.next();
      if (record.type === 'alive') continue;
      if (record.type !== 'control') throw new CheckpointError('CHKPT_PEER_PROTOCOL', 'no control message');
      const message = decodeToSource(record.payload);
      onMessage();
      if (isOfProtocol(message)) this.#dispatch({ type: 'message', message });
    }
  }
}
