/**
 * A connection as a place: what is saved goes through a link to a receiver, which keeps it elsewhere; what is loaded is sent from there
 * through another link. So the suites, which save, then load, and load again, hold for a stream that is read once.
 */
import { receiveCheckpoint, type Store } from '../../src/index.ts';
import type { StoreReader, StoreReadOptions, StoreWriteOptions, StoreWriter } from '../../src/store/index.ts';

/** How the two ends of one link are opened; each end sends or receives. */
export interface StreamEnds {
  /** The end that waits for the other one; `told` gets the URL at which it does. */
  listen(told: (url: string) => void): Store;
  /** The end that comes to it. */
  connect(url: string): Store;
}

export type WaitingEnd = 'sender' | 'receiver';

/** What both ends make of one link: each when it is done with opening. */
interface Joined<Sent, Received> {
  readonly sending: Promise<Sent>;
  readonly receiving: Promise<Received>;
}

export class JoinedStream implements Store {
  readonly url: string;
  readonly readsFrames = true;
  readonly #ends: StreamEnds;
  readonly #waits: WaitingEnd;
  readonly #kept: Store;

  /** `kept`: where the receiver keeps what comes, of any scheme. */
  constructor(ends: StreamEnds, waits: WaitingEnd, kept: Store) {
    this.#ends = ends;
    this.#waits = waits;
    this.#kept = kept;
    this.url = kept.url;
  }

  async openWriter(options: StoreWriteOptions): Promise<StoreWriter> {
    const stop = new AbortController();
    const { sending, receiving } = await this.#join(
      stop,
      (sender) => sender.openWriter(options),
      async (receiver) => await receiveCheckpoint(receiver, this.#kept, { signal: stop.signal }),
    );
    const writer = await orStop(sending, stop);
    const { commit, abort } = writer;
    let isCommitted = false;
    writer.commit = async (summary) => {
      await commit.call(writer, summary);
      isCommitted = true;
      await receiving;
    };
    writer.abort = async () => {
      await abort.call(writer);
      if (isCommitted) return;
      const isKept = await receiving.then(
        () => true,
        () => false,
      );
      if (isKept) throw new Error('the receiver has kept a save that was dropped');
    };
    return writer;
  }

  async openReader(options: StoreReadOptions = {}): Promise<StoreReader> {
    const stop = new AbortController();
    const { sending, receiving } = await this.#join(
      stop,
      async (sender) => await receiveCheckpoint(this.#kept, sender, { signal: stop.signal }),
      (receiver) => receiver.openReader(options),
    );
    // A sender that has nothing to send never comes.
    const failed = sending.then(() => receiving);
    const reader = await orStop(Promise.race([receiving, failed]), stop);
    const { close } = reader;
    reader.close = async () => {
      await close.call(reader);
      await sending;
    };
    return reader;
  }

  async #join<Sent, Received>(
    stop: AbortController,
    send: (end: Store) => Promise<Sent>,
    receive: (end: Store) => Promise<Received>,
  ): Promise<Joined<Sent, Received>> {
    let told: (url: string) => void = () => undefined;
    const url = new Promise<string>((resolve) => {
      told = resolve;
    });
    const waiting = this.#ends.listen(told);
    const begin = async <First, Second>(first: Promise<First>, second: (end: Store) => Promise<Second>) => {
      first.catch(() => undefined);
      await orStop(Promise.race([url, first]), stop);
      const other = second(this.#ends.connect(await url));
      other.catch(() => undefined);
      return [first, other] as const;
    };
    if (this.#waits === 'sender') {
      const [sending, receiving] = await begin(send(waiting), receive);
      return { sending, receiving };
    }
    const [receiving, sending] = await begin(receive(waiting), send);
    return { sending, receiving };
  }
}

/** Lets the other end go when this one has failed. */
async function orStop<T>(work: Promise<T>, stop: AbortController): Promise<T> {
  try {
    return await work;
  } catch (error) {
    stop.abort();
    throw error;
  }
}
