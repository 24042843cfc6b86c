/** The machine of a source as the commit protocol needs it: paused, fenced, let run again, or gone for good. */
import type { VirtualMachine } from '../../checkpoint/virtual-machine.ts';
import { CheckpointError } from '../../errors/index.ts';

export class SourceGuest {
  readonly #vm: VirtualMachine;
  readonly #wasRunning: boolean;
  #pausing: Promise<void> | undefined;
  /** The machine refuses to run: it may not be this host's guest any more. */
  #isFenced = false;

  constructor(vm: VirtualMachine) {
    this.#vm = vm;
    this.#wasRunning = vm.running;
  }

  get isRunning(): boolean {
    return this.#vm.running;
  }

  async pause(): Promise<void> {
    if (!this.#vm.running) return;
    this.#pausing = Promise.resolve(this.#vm.pause());
    await this.#pausing;
  }

  /** From here on it is not this host's to run, whoever asks. Throws when somebody has let it run: what was sent is not what it is any more. */
  fence(): void {
    this.#isFenced = false;
    this.#vm.beginLoad();
    this.#isFenced = true;
  }

  /** As it was. Waits for a pause under way, and not for a task that may be stuck in the network. Rejects with what the machine says. */
  async goOn(): Promise<void> {
    await this.#pausing?.catch(() => undefined);
    if (this.#isFenced) await this.#vm.endLoad();
    this.#isFenced = false;
    if (this.#wasRunning && !this.#vm.running) await this.#vm.resume();
  }

  /** I1: it never runs here again. */
  async markMoved(): Promise<void> {
    const moved = new CheckpointError('CHKPT_VM_MOVED', 'the guest was moved to another host');
    try {
      if (!this.#isFenced) this.#vm.beginLoad();
      await this.#vm.endLoad(moved);
    } catch {
      // It refuses to run already.
    }
  }
}
