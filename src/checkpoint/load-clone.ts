/** A lazy load of a machine whose memory is a clone of a shared image: what it has written goes, and what it has not comes from the image. */
import { CheckpointError, withDetails } from '../errors/index.ts';
import type { ClonePages, GuestMemory } from '../memory/index.ts';
import { deferred } from '../util/deferred.ts';
import type { LazyLoad, ResidentReport } from './lazy-options.ts';
import { stopMachine } from './load-lazy.ts';
import type { NotLazy } from './open-layer.ts';
import type { SharedImage } from './shared-image.ts';
import type { VirtualMachine } from './virtual-machine.ts';

export class PreparedCloneLoad {
  readonly #vm: VirtualMachine;
  readonly #memory: GuestMemory;
  readonly #pages: ClonePages;
  readonly #image: SharedImage;
  #hasStarted = false;

  private constructor(vm: VirtualMachine, memory: GuestMemory, pages: ClonePages, image: SharedImage) {
    this.#vm = vm;
    this.#memory = memory;
    this.#pages = pages;
    this.#image = image;
  }

  /** For a load of the checkpoint `uuid`, or why it must be an eager one. Throws what has made the image fail. */
  static prepare(
    vm: VirtualMachine,
    memory: GuestMemory | undefined,
    uuid: string,
    image: SharedImage,
  ): PreparedCloneLoad | NotLazy {
    if (memory === undefined) return { reason: 'no memory is loaded' };
    const pages = image.pagesOf(memory);
    if (pages === undefined) return { reason: 'the memory of the machine is no clone of the image' };
    if (image.uuid !== uuid) return { reason: 'the image is of another checkpoint' };
    pages.image.check();
    return new PreparedCloneLoad(vm, memory, pages, image);
  }

  get summary(): { readonly root: string; readonly bytes: number } {
    return { root: this.#image.root, bytes: this.#image.checkpointBytes };
  }

  async start(): Promise<void> {
    this.#hasStarted = true;
    await this.#memory.replaceMissingPages(this.#pages);
    await this.#pages.reset();
    this.#pages.hold();
  }

  /** The load failed before the guest could run. */
  async cancel(error: unknown): Promise<void> {
    // Until then the memory may be that of a machine that runs.
    if (!this.#hasStarted) return;
    this.#pages.fail(error);
    this.#pages.release();
  }

  run(begin: number, signal: AbortSignal | undefined): LazyLoad {
    const resident = this.#finish(begin, signal);
    resident.catch(() => undefined);
    return {
      resident,
      replay: { blocks: 0 },
      counts: () => this.#image.counts(),
      saveWorkingSet: async () => {
        throw new TypeError('the working set is not recorded');
      },
    };
  }

  async #finish(begin: number, signal: AbortSignal | undefined): Promise<ResidentReport> {
    const ended = deferred<never>();
    this.#pages.onClose = () => ended.reject(new CheckpointError('CHKPT_CLOSED', 'the lazy load was closed'));
    const abort = (): void => ended.reject(new CheckpointError('CHKPT_ABORTED', 'lazy load aborted'));
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted) abort();
    try {
      const report = await Promise.race([this.#image.resident, ended.promise]);
      return { ...report, elapsedMs: performance.now() - begin };
    } catch (error) {
      if (error instanceof CheckpointError && error.code === 'CHKPT_CLOSED') throw error;
      const failure = withDetails(error, { store: this.#image.url });
      await stopMachine(
        this.#vm,
        this.#pages,
        failure instanceof Error ? failure : new Error(String(failure)),
      );
      throw failure;
    } finally {
      this.#pages.onClose = undefined;
      signal?.removeEventListener('abort', abort);
    }
  }
}
