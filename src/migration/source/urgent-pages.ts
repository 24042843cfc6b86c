/**
 * Post-copy: pages that a thread of the guest waits for, sent one small record each, in front of everything else and over a connection of
 * their own. The destination counts what it has placed; what it had not when a link broke is sent again with the rest.
 */
import { CheckpointError } from '../../errors/index.ts';
import type { GuestMemory, PageSet } from '../../memory/index.ts';
import { wrong } from '../wire/record.ts';
import type { RecordChannel } from '../wire/record-channel.ts';

interface PageRun {
  readonly first: number;
  readonly count: number;
}

export class UrgentPages {
  readonly #memory: () => GuestMemory;
  /** Pages that are not at the destination, as far as is known. */
  readonly #lacking: PageSet;
  /** Of them, those that nobody has sent. */
  readonly #pending: PageSet;
  /** Sent and not placed yet, in this order. */
  #sent: PageRun[] = [];
  #placed = 0;
  #wanted: number[] = [];
  #channel: RecordChannel | undefined;
  #isSending = false;
  pages = 0;

  constructor(memory: () => GuestMemory, lacking: PageSet, pending: PageSet) {
    this.#memory = memory;
    this.#lacking = lacking;
    this.#pending = pending;
  }

  /** Over which connection from now on: what was not placed may be lost. */
  use(channel: RecordChannel): void {
    for (const { first, count } of this.#sent) this.#pending.markRun(first, count);
    this.#sent = [];
    this.#placed = 0;
    this.#channel = channel;
    void this.#send();
  }

  /** Everything that was sent is placed. */
  get isIdle(): boolean {
    return this.#sent.length === 0;
  }

  /** Asked for by the destination. Throws `CHKPT_PEER_PROTOCOL` for pages that there are not. */
  want(pages: Float64Array): void {
    for (const page of pages) {
      if (page >= this.#lacking.pageCount) throw wrong('a wish for a page that there is not');
      this.#wanted.push(page);
    }
    void this.#send();
  }

  /** So many records of this link are in their place. Throws `CHKPT_PEER_PROTOCOL` when there were not so many. */
  placed(count: number): void {
    if (count < this.#placed || count - this.#placed > this.#sent.length)
      throw wrong('a receipt for other pages');
    for (const { first, count: pages } of this.#sent.splice(0, count - this.#placed)) {
      this.#lacking.clearRun(first, pages);
    }
    this.#placed = count;
  }

  /** One at a time, as fast as the connection takes them. */
  async #send(): Promise<void> {
    const channel = this.#channel;
    if (this.#isSending || channel === undefined) return;
    this.#isSending = true;
    try {
      for (let page = this.#wanted.shift(); page !== undefined; page = this.#wanted.shift()) {
        const run = this.#lacking.neighboursOf(page);
        const isUnderWay = this.#sent.some(
          ({ first, count }) => first <= (page ?? 0) && (page ?? 0) < first + count,
        );
        // It has come, or comes, in another one's company.
        if (run === undefined || isUnderWay) continue;
        const bytes = this.#memory().native.encodeRun(run.first, run.count);
        this.#pending.clearRun(run.first, run.count);
        this.#sent.push(run);
        this.pages += run.count;
        await channel.send('pages', bytes);
      }
    } catch (error) {
      // The link tells it, too; and whatever else it was is tried again over the next one.
      channel.destroy(error instanceof CheckpointError ? error : undefined);
    } finally {
      this.#isSending = false;
    }
    if (this.#channel !== channel) await this.#send();
  }
}
