/**
 * Takes a machine that an original sends, or a `sendPalacios`: memory in rounds, then its state. The sender hears nothing; who it is
 * nobody knows.
 */
import { ChangeLog } from '../../checkpoint/change-log.ts';
import { abortedOr } from '../../checkpoint/save-vm.ts';
import { inTurn } from '../../checkpoint/turns.ts';
import type { SkipPart, VirtualMachine } from '../../checkpoint/virtual-machine.ts';
import type { IgnoredMismatch } from '../../checkpoint/vm-header.ts';
import { CheckpointError } from '../../errors/index.ts';
import { besideContext } from '../../foreign/palacios/beside.ts';
import { readContext } from '../../foreign/palacios/net-format.ts';
import { openLink, type PalaciosLinkOptions, parsePalaciosAddress } from '../../foreign/palacios/net-link.ts';
import type { PalaciosContext } from '../../foreign/palacios/record.ts';
import { palaciosNetScheme } from '../../foreign/palacios/register.ts';
import { fromPalacios } from '../../foreign/palacios/translate.ts';
import { WireReader } from '../../foreign/palacios/wire-reader.ts';
import { formatError } from '../../format/bytes.ts';
import type { GuestMemory } from '../../memory/index.ts';
import { parseStoreUrl, urlError } from '../../store/url.ts';
import { readContent } from './machine-content.ts';
import { bitmapContext, checkOneRange, readBitmap, readPages } from './memory-wire.ts';

/** An original sends no more: rounds 0 to 33. */
const roundCountMax = 34;

export interface ReceivePalaciosOptions extends PalaciosLinkOptions {
  /** Parts of the state that the sender was told to skip, or that are not to be loaded. */
  readonly skip?: readonly Exclude<SkipPart, 'memory'>[] | undefined;
  /** Differences between the machines to accept; an original sends neither id nor model of the processor. */
  readonly ignore?: readonly IgnoredMismatch[] | undefined;
  /**
   * Gives the machine the state that an original has sent, in whose terms only the caller knows how: contexts as they came, checked
   * against what an original writes. Called when all was received, the machine stands still and must not run yet. Needed for whatever
   * comes from no chkpt.
   */
  readonly apply?: ((contexts: readonly PalaciosContext[]) => void | Promise<void>) | undefined;
  readonly onClosingName?: ((context: string, close: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ReceivePalaciosReport {
  readonly url: string;
  readonly rounds: number;
  /** Pages that came, those that came again counted again. */
  readonly pages: number;
  readonly bytes: number;
  /** What came after memory, in order. */
  readonly contexts: readonly PalaciosContext[];
}

/**
 * Takes a guest into `vm`, a paused machine with memory of the same size, and leaves it paused: `resume()` lets it run.
 *
 * Rejects with `CHKPT_VM_RUNNING`, `CHKPT_UNSUPPORTED`, `CHKPT_INSECURE`, `CHKPT_LINK_LOST`, `CHKPT_TIMEOUT`, `CHKPT_ABORTED`, errors of
 * kind `damaged` and `mismatch`. When memory was already touched the machine refuses to run until another guest is loaded.
 */
export async function receivePalacios(
  vm: VirtualMachine,
  url: string,
  options: ReceivePalaciosOptions = {},
): Promise<ReceivePalaciosReport> {
  const { scheme, rest } = parseStoreUrl(url);
  if (scheme !== palaciosNetScheme) throw urlError('an original sends guests to palacios+net: only', url);
  const address = parsePalaciosAddress(rest, url);
  return await inTurn(vm, options.signal, async () => {
    const { memory } = vm;
    if (vm.running) throw new CheckpointError('CHKPT_VM_RUNNING', 'the machine runs');
    if (memory === undefined) throw new TypeError('a machine without memory is not migrated');
    checkOneRange(memory);
    const link = await openLink(address, options, { url, signal: options.signal });
    try {
      const reception = new Reception(vm, memory, new WireReader(link, url), options);
      const received = await reception.run();
      link.destroy();
      return { ...received, url, bytes: link.bytesRead };
    } catch (error) {
      // A sender that waits for an end in good order hears of it.
      link.reset();
      throw abortedOr(error, options.signal);
    }
  });
}

class Reception {
  readonly #vm: VirtualMachine;
  readonly #memory: GuestMemory;
  readonly #reader: WireReader;
  readonly #options: ReceivePalaciosOptions;
  #rounds = 0;
  #pages = 0;
  #isTouched = false;

  constructor(vm: VirtualMachine, memory: GuestMemory, reader: WireReader, options: ReceivePalaciosOptions) {
    this.#vm = vm;
    this.#memory = memory;
    this.#reader = reader;
    this.#options = options;
  }

  async run(): Promise<Pick<ReceivePalaciosReport, 'rounds' | 'pages' | 'contexts'>> {
    try {
      await this.#readMemory();
      const contexts = await this.#readState();
      await this.#apply(contexts);
      await this.#vm.endLoad();
      return { rounds: this.#rounds, pages: this.#pages, contexts };
    } catch (error) {
      if (this.#isTouched) await this.#vm.endLoad(error instanceof Error ? error : new Error(String(error)));
      throw error;
    } finally {
      // What the tracker knew was about another content.
      if (this.#isTouched && this.#vm.dirtyTracker !== undefined) ChangeLog.of(this.#vm.dirtyTracker).reset();
    }
  }

  /** Rounds until one without pages. */
  async #readMemory(): Promise<void> {
    for (;;) {
      const name = await this.#reader.open();
      if (name !== bitmapContext) {
        throw formatError('no pages where those of a migration are expected', this.#reader.place, {
          expected: bitmapContext,
          actual: name,
        });
      }
      const pages = await readBitmap(this.#reader, this.#memory);
      if (pages.count() === 0) return;
      this.#rounds += 1;
      if (this.#rounds > roundCountMax) {
        throw new CheckpointError('CHKPT_LIMIT', 'more rounds than an original sends', {
          details: this.#reader.place,
        });
      }
      await this.#touch();
      await readPages(this.#reader, this.#memory, pages, (count) => {
        this.#pages += count;
      });
    }
  }

  /** Everything up to the end of the connection. */
  async #readState(): Promise<PalaciosContext[]> {
    const contexts: PalaciosContext[] = [];
    for (let name = await this.#reader.open(); name !== undefined; name = await this.#reader.open()) {
      contexts.push(await readContext(this.#reader, name, this.#options));
    }
    return contexts;
  }

  async #apply(contexts: readonly PalaciosContext[]): Promise<void> {
    const { skip = [], ignore = [], signal, apply } = this.#options;
    const content = fromPalacios({ contexts, blocks: undefined }, new Uint8Array());
    const isOwn = contexts.some(({ name }) => name === besideContext);
    if (!isOwn && apply === undefined) {
      throw new CheckpointError(
        'CHKPT_UNSUPPORTED',
        'an original has sent its state, and nobody says what to do with it (apply)',
      );
    }
    const set = isOwn ? await readContent(this.#vm, content, { skip, ignore, signal }) : [];
    await this.#touch();
    for (const one of set) await one();
    if (!isOwn) await apply?.(contexts);
  }

  async #touch(): Promise<void> {
    if (this.#isTouched) return;
    await this.#memory.replaceMissingPages(undefined);
    this.#vm.beginLoad();
    this.#isTouched = true;
  }
}
