/**
 * Ctrl-C and its relatives for commands that have something to clean up: the first signal aborts, the second one ends the
 * process at once, as if nobody had been listening.
 */
import { constants } from 'node:os';
import { CheckpointError } from '../errors/index.ts';

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
type StopSignal = (typeof signals)[number];

export class Interrupt {
  readonly #controller = new AbortController();
  readonly #onSignal = (name: StopSignal): void => this.#handle(name);
  #received: StopSignal | undefined;

  /** Listens from now on, until `dispose()`. */
  constructor() {
    for (const name of signals) process.on(name, this.#onSignal);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The first signal that came. */
  get received(): StopSignal | undefined {
    return this.#received;
  }

  /** Exit code of a process that ended because of the signal: 130 for SIGINT. */
  get exitCode(): number | undefined {
    return this.#received === undefined ? undefined : 128 + constants.signals[this.#received];
  }

  dispose(): void {
    for (const name of signals) process.off(name, this.#onSignal);
  }

  #handle(name: StopSignal): void {
    if (this.#received !== undefined) {
      this.dispose();
      process.kill(process.pid, name);
      return;
    }
    this.#received = name;
    this.#controller.abort(new CheckpointError('CHKPT_ABORTED', `stopped by ${name}`));
  }
}
