/**
 * Post-copy: pages that a thread of the guest waits for, sent one small record each, in front of everything else and over a connection of
 * their own. The destination counts what it has placed; what it had not when a link broke is sent again with the rest.
 */
import { CheckpointError } from '../../errors/index.ts';
import { pageBytes } from '../../limits.ts';
import type { GuestMemory, PageSet } from '../../memory/index.ts';
import { wrong } from '../wire/record.ts';
import type { RecordChannel } from '../wire/record-channel.ts';

/** Pages that are asked for and not sent: one for each thread that waits. */
const wantedMax = 65_536;

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
  /** Sent and not placed yet, in this order; and its pages. */
  #sent: PageRun[] = [];
  readonly #underWay = new Set<number>();
  #placed = 0;
  /** In the order in which they were asked for; whoever asks twice waits as long. */
  readonly #wanted = new Set<number>();
  #channel: Pick<RecordChannel, 'send' | 'destroy'> | undefined;
  #isSending = false;

  constructor(memory: () => GuestMemory, lacking: PageSet, pending: PageSet) {
    this.#memory = memory;
    this.#lacking = lacking;
    this.#pending = pending;
  }

  /** Over which connection from now on: what was not placed may be lost. */
  use(channel: Pick<RecordChannel, 'send' | 'destroy'>): void {
    for (const { first, count } of this.#sent) {
      this.#pending.markRun(first, count);
      // Somebody waited for one of them.
      this.#wanted.add(first);
    }
    this.#sent = [];
    this.#underWay.clear();
    this.#placed = 0;
    this.#channel = channel;
    void this.#send();
  }

  /** The link is gone: what is asked for waits for the next one. */
  pause(): void {
    this.#channel = undefined;
  }

  /** Asked for by the destination. Throws `CHKPT_PEER_PROTOCOL` for pages that there are not. */
  want(pages: Float64Array): void {
    for (const page of pages) {
      if (page >= this.#lacking.pageCount) throw wrong('a wish for a page that there is not');
      this.#wanted.add(page);
    }
    if (this.#wanted.size > wantedMax) throw wrong('more wishes than a guest has threads');
    void this.#send();
  }

  /** So many records of this link are in their place. Throws `CHKPT_PEER_PROTOCOL` when there were not so many. */
  placed(count: number): void {
    const news = count - this.#placed;
    if (news < 0 || news > this.#sent.length) throw wrong('a receipt for other pages');
    for (const { first, count: pages } of this.#sent.splice(0, news)) {
      this.#lacking.clearRun(first, pages);
      for (let page = first; page < first + pages; page += 1) this.#underWay.delete(page);
    }
    this.#placed = count;
  }

  /** One at a time, as fast as the connection takes them. */
  async #send(): Promise<void> {
    const channel = this.#channel;
    if (this.#isSending || channel === undefined) return;
    this.#isSending = true;
    try {
      for (const page of this.#wanted) {
        this.#wanted.delete(page);
        const run = this.#runOf(page);
        // It comes in another one's company.
        if (this.#underWay.has(page)) continue;
        const bytes = this.#memory().native.encodeRun(run.first, run.count);
        this.#pending.clearRun(run.first, run.count);
        this.#sent.push(run);
        for (let next = run.first; next < run.first + run.count; next += 1) this.#underWay.add(next);
        await channel.send('pages', bytes);
        if (this.#channel !== channel) break;
      }
    } catch (error) {
      // The link tells it, too; and whatever else it was is tried again over the next one.
      channel.destroy(error instanceof CheckpointError ? error : undefined);
    } finally {
      this.#isSending = false;
    }
    if (this.#channel !== channel) await this.#send();
  }

  /** The page and its neighbours that are not there, all of one region. One that has been acknowledged and is asked for all the same goes alone. */
  #runOf(page: number): PageRun {
    const run = this.#lacking.neighboursOf(page) ?? { first: page, count: 1 };
    let begin = 0;
    for (const { bytes } of this.#memory().regions) {
      const end = begin + Number(bytes / BigInt(pageBytes));
      if (page < end) {
        const first = Math.max(run.first, begin);
        return { first, count: Math.min(run.first + run.count, end) - first };
      }
      begin = end;
    }
    return run;
  }
}
