/**
 * Whether a machine may run, kept in one place for all adapters: calls run one after the other, a machine that is closed or
 * holds a mixture of two states never runs, and one that runs is never loaded into.
 */
import { CheckpointError } from '../index.ts';
import { CallQueue } from '../util/call-queue.ts';

/** The machine that a gate stands in front of. */
export interface GatedMachine {
  readonly id: string;
  readonly running: boolean;
}

export class RunGate {
  readonly #machine: GatedMachine;
  readonly #queue = new CallQueue();
  #failure: Error | undefined;
  #closed = false;
  /** The guest is being let run: it must not be loaded into any more. */
  #isStarting = false;

  constructor(machine: GatedMachine) {
    this.#machine = machine;
  }

  /** Why the machine must not run; `undefined` when it may. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** The machine was given back: it does nothing any more. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Stops the guest; does nothing when it stands still. */
  pause(stop: () => void | Promise<void>): Promise<void> {
    return this.#queue.run(async () => {
      if (this.#machine.running) await stop();
    });
  }

  /** Lets the guest run; does nothing when it runs. Rejects with `CHKPT_CLOSED`, `CHKPT_VM_FAILED`. */
  resume(start: () => void | Promise<void>): Promise<void> {
    return this.#queue.run(async () => {
      const { id } = this.#machine;
      this.checkOpen();
      if (this.#failure !== undefined) {
        throw new CheckpointError('CHKPT_VM_FAILED', `machine ${id} must not run`, { cause: this.#failure });
      }
      if (this.#machine.running) return;
      this.#isStarting = true;
      try {
        await start();
      } finally {
        this.#isStarting = false;
      }
    });
  }

  /** Work on a machine that stands still. Rejects with `CHKPT_VM_RUNNING`. */
  whilePaused<T>(work: () => Promise<T>): Promise<T> {
    return this.#queue.run(() => {
      this.checkPaused();
      return work();
    });
  }

  /** Throws `CHKPT_CLOSED`. */
  checkOpen(): void {
    if (this.#closed) throw new CheckpointError('CHKPT_CLOSED', `machine ${this.#machine.id} is closed`);
  }

  /** Throws `CHKPT_VM_RUNNING`. */
  checkPaused(): void {
    const { id, running } = this.#machine;
    if (running || this.#isStarting) throw new CheckpointError('CHKPT_VM_RUNNING', `machine ${id} runs`);
  }

  /** See `VirtualMachine.beginLoad`. */
  beginLoad(): void {
    this.checkPaused();
    this.#failure = new Error('the state of the machine is being replaced');
  }

  /** See `VirtualMachine.endLoad`; called when the machine is whole again, or with what went wrong. */
  endLoad(failure?: Error): void {
    this.#failure = failure;
  }

  /** From now on the machine does not run. `release` is called once, with the guest as it is. */
  close(release: () => Promise<void>): Promise<void> {
    return this.#queue.run(async () => {
      if (this.#closed) return;
      this.#closed = true;
      await release();
    });
  }
}
