/** Post-copy at the destination: asks for the pages that threads of the guest wait for, until all are here. */
import { setTimeout as sleep } from 'node:timers/promises';
import { stopMachine } from '../../checkpoint/load-lazy.ts';
import type { VirtualMachine } from '../../checkpoint/virtual-machine.ts';
import type { ArrivingPages } from '../../memory/index.ts';
import { wantedMax } from '../wire/messages.ts';

/** How long connections may still bring what is here already. */
const lateMs = 5000;

export interface FetchingOptions {
  readonly vm: VirtualMachine;
  readonly pages: ArrivingPages;
  /** Asks the source, when there is a link. */
  readonly ask: (pages: Float64Array) => Promise<void>;
  /** All are here, and the guest needs the source no more. */
  readonly onComplete: () => void;
  /** They never will be: before the guest is stopped. */
  readonly onLost: (failure: Error) => Promise<void>;
  /** Breaks the connections that bring pages. */
  readonly cut: () => void;
  /** Resolves when nobody places pages. */
  readonly idle: () => Promise<void>;
  /** Resolves when the source knows that it is not needed any more. */
  readonly told: Promise<void>;
}

/** Rejects when pages will never come: then the guest is stopped, and never runs on with anything else in their place. */
export async function fetchPages({
  vm,
  pages,
  ask,
  onComplete,
  onLost,
  cut,
  idle,
  told,
}: FetchingOptions): Promise<void> {
  try {
    for (let wanted = await pages.wanted(); wanted !== undefined; wanted = await pages.wanted()) {
      for (let from = 0; from < wanted.length; from += wantedMax)
        await ask(wanted.subarray(from, from + wantedMax));
    }
  } catch (error) {
    const failure = error instanceof Error ? error : new Error(String(error));
    await onLost(failure);
    cut();
    await idle();
    await stopMachine(vm, pages, failure);
    throw failure;
  }
  onComplete();
  // Faults are served until the last copy of a page was refused.
  await Promise.race([Promise.all([idle(), told]), sleep(lateMs, undefined, { ref: false })]);
  cut();
  await idle();
  await pages.finish();
}
