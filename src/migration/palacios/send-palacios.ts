/**
 * Sends a running machine to an original, or to a `receivePalacios`: pages in rounds while it runs, with the original's rules for the
 * last one, then its state. The protocol has no answer, so that this end never learns whether the guest runs there.
 */

import { abortedOr } from '../../checkpoint/save-vm.ts';
import { inTurn } from '../../checkpoint/turns.ts';
import type { SkipPart, VirtualMachine } from '../../checkpoint/virtual-machine.ts';
import { CheckpointError } from '../../errors/index.ts';
import { isBeside } from '../../foreign/palacios/beside.ts';
import { encodeWireContext, finishLink } from '../../foreign/palacios/net-format.ts';
import {
  openLink,
  type PalaciosLink,
  type PalaciosLinkOptions,
  parsePalaciosAddress,
} from '../../foreign/palacios/net-link.ts';
import type { PalaciosContext } from '../../foreign/palacios/record.ts';
import { palaciosNetScheme } from '../../foreign/palacios/register.ts';
import { toPalacios } from '../../foreign/palacios/translate.ts';
import { type DirtyTracker, type GuestMemory, PageSet } from '../../memory/index.ts';
import { parseStoreUrl, urlError } from '../../store/url.ts';
import { abortError } from '../../transport/authorise.ts';
import { openTracking } from '../source/tracking.ts';
import { contentOfMachine } from './machine-content.ts';
import { checkOneRange, encodeBitmap, encodePages } from './memory-wire.ts';

/** A round with fewer pages is the last one. */
const lastRoundPages = 200;
/** The last round, whatever was written. */
const lastRound = 33;

export interface SendPalaciosOptions extends PalaciosLinkOptions {
  /** Parts of the state that are not sent. The receiver must be told the same: the protocol does not say. */
  readonly skip?: readonly Exclude<SkipPart, 'memory'>[] | undefined;
  /**
   * Whether contexts that no original knows follow the last one; default true: a chkpt needs them. An original has closed the connection
   * by then, and the send ends with `CHKPT_UNACKNOWLEDGED`.
   */
  readonly beside?: boolean | undefined;
  /**
   * The contexts of devices, header and cores in the order of an original, of a machine that has the devices of one. Asked when the guest
   * stands still. Default: what `palacios+net:` makes of a checkpoint of the machine.
   */
  readonly contexts?: (() => readonly PalaciosContext[] | Promise<readonly PalaciosContext[]>) | undefined;
  /** Cancels until the state is on its way: the guest runs on here. */
  readonly signal?: AbortSignal | undefined;
  /** Told of each round when its pages were sent. */
  readonly onRound?: ((round: PalaciosRound) => void) | undefined;
}

export interface PalaciosRound {
  /** From 0 on. */
  readonly round: number;
  readonly pages: number;
  /** The guest stood still. */
  readonly isLast: boolean;
}

export interface SendPalaciosReport {
  readonly url: string;
  readonly rounds: readonly PalaciosRound[];
  readonly bytes: number;
  /** How long the guest has stood still until all was sent, milliseconds. */
  readonly pausedMs: number;
  /** Who told what the guest wrote; undefined: it stood still. */
  readonly tracker: { readonly kind: string; readonly reason: string } | undefined;
}

/**
 * Sends `vm` and leaves it paused. Resolves when the receiver has closed the connection in good order: more this protocol cannot tell.
 *
 * Rejects with `CHKPT_UNSUPPORTED` before anything is sent when memory is not one range from 0, or the guest runs and nobody can tell what
 * it writes; with `CHKPT_INSECURE`, `CHKPT_LINK_LOST`, `CHKPT_TIMEOUT`, `CHKPT_ABORTED`, `CHKPT_VM_FAILED`: then the guest runs on as
 * before. With `CHKPT_UNACKNOWLEDGED` it stays paused: all of it was sent, and nobody knows whether it runs there.
 */
export async function sendPalacios(
  vm: VirtualMachine,
  url: string,
  options: SendPalaciosOptions = {},
): Promise<SendPalaciosReport> {
  const { scheme, rest } = parseStoreUrl(url);
  if (scheme !== palaciosNetScheme) throw urlError('an original takes guests at palacios+net: only', url);
  const address = parsePalaciosAddress(rest, url);
  return await inTurn(vm, options.signal, async () => {
    const { memory } = vm;
    if (vm.failure !== undefined) {
      throw new CheckpointError('CHKPT_VM_FAILED', 'the machine holds a mixture of two states', {
        cause: vm.failure,
      });
    }
    if (memory === undefined) throw new TypeError('a machine without memory is not migrated');
    checkOneRange(memory);
    const tracking = vm.running ? openTracking(vm, memory, undefined) : undefined;
    try {
      if (tracking !== undefined && tracking.tracker === undefined) {
        throw new CheckpointError(
          'CHKPT_UNSUPPORTED',
          `the guest runs, and nobody can tell what it writes: ${tracking.report.reason}`,
        );
      }
      const link = await openLink(address, options, { url, signal: options.signal });
      const sending = new Sending(vm, memory, link, { ...options, url, tracker: tracking?.tracker });
      const sent = await sending.run();
      return { ...sent, url, tracker: tracking?.report };
    } catch (error) {
      throw abortedOr(error, options.signal);
    } finally {
      await tracking?.close();
    }
  });
}

interface SendingOptions extends SendPalaciosOptions {
  readonly url: string;
  readonly tracker: DirtyTracker | undefined;
}

class Sending {
  readonly #vm: VirtualMachine;
  readonly #memory: GuestMemory;
  readonly #link: PalaciosLink;
  readonly #options: SendingOptions;
  readonly #wasRunning: boolean;
  readonly #rounds: PalaciosRound[] = [];
  #pausedAt = 0;
  /** The receiver may have everything. */
  #isInDoubt = false;

  constructor(vm: VirtualMachine, memory: GuestMemory, link: PalaciosLink, options: SendingOptions) {
    this.#vm = vm;
    this.#memory = memory;
    this.#link = link;
    this.#options = options;
    this.#wasRunning = vm.running;
  }

  async run(): Promise<Pick<SendPalaciosReport, 'rounds' | 'bytes' | 'pausedMs'>> {
    try {
      await this.#sendMemory();
      await this.#sendState();
      const bytes = this.#link.bytesWritten;
      await finishLink(this.#link, this.#options.url);
      return { rounds: this.#rounds, bytes, pausedMs: performance.now() - this.#pausedAt };
    } catch (error) {
      // A receiver that has a part of it must not take that for a whole guest.
      if (!this.#isInDoubt) this.#link.reset();
      this.#link.destroy();
      if (this.#isInDoubt) throw this.#unknown(error);
      if (this.#wasRunning && !this.#vm.running) await this.#vm.resume();
      throw error;
    }
  }

  async #sendMemory(): Promise<void> {
    const { tracker, onRound } = this.#options;
    let pages = new PageSet(this.#memory.pageCount);
    pages.markRun(0, this.#memory.pageCount);
    for (let round = 0; ; round += 1) {
      await this.#pause();
      if (round > 0 && tracker !== undefined) pages = await tracker.harvest();
      const count = pages.count();
      const isLast = !this.#wasRunning || count < lastRoundPages || round >= lastRound;
      if (!isLast) {
        if (round === 0) await tracker?.arm();
        await this.#vm.resume();
      }
      if (count > 0) {
        await this.#link.writeAll(encodeBitmap(pages));
        for (const frames of encodePages(this.#memory, pages)) {
          this.#checkAborted();
          await this.#link.write(frames);
        }
        this.#rounds.push({ round, pages: count, isLast });
        onRound?.({ round, pages: count, isLast });
      }
      if (isLast) break;
    }
    await this.#link.writeAll(encodeBitmap(new PageSet(this.#memory.pageCount)));
  }

  async #sendState(): Promise<void> {
    const contexts = await this.#contexts();
    const pieces = contexts.flatMap(encodeWireContext);
    const last = pieces.pop();
    await this.#link.writeAll(pieces);
    this.#checkAborted();
    // With these bytes the receiver has all that it needs.
    this.#isInDoubt = true;
    if (last !== undefined) await this.#link.write(last);
  }

  async #contexts(): Promise<readonly PalaciosContext[]> {
    const { contexts, beside = true, skip = [], signal } = this.#options;
    if (contexts !== undefined) return await contexts();
    const content = await contentOfMachine(this.#vm, { skip, signal });
    const all = toPalacios(content, undefined).contexts;
    return beside ? all : all.filter(({ name }) => !isBeside(name));
  }

  async #pause(): Promise<void> {
    this.#checkAborted();
    await this.#vm.pause();
    this.#pausedAt = performance.now();
    if (this.#vm.running) throw new CheckpointError('CHKPT_VM_RUNNING', 'the machine could not be paused');
  }

  #checkAborted(): void {
    const { signal } = this.#options;
    if (signal?.aborted === true) throw abortError(signal);
  }

  #unknown(cause: unknown): CheckpointError {
    if (cause instanceof CheckpointError && cause.code === 'CHKPT_UNACKNOWLEDGED') return cause;
    const what = 'everything was sent, and nobody knows whether the receiver has it; the guest stays paused';
    return new CheckpointError('CHKPT_UNACKNOWLEDGED', what, {
      details: { store: this.#options.url },
      cause,
    });
  }
}
