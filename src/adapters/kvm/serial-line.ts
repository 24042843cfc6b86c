/** The host's end of the serial port: what the guest sends arrives as it comes, what is written waits for room in its FIFO. */
import type { NativeKvmMachine } from '../../native/index.ts';

/** Bytes that may wait; a caller that types faster than the guest reads is told so. */
const waitingBytesMax = 1 << 20;

export class SerialLine {
  readonly #machine: NativeKvmMachine;
  readonly #onOutput: (bytes: Uint8Array) => void;
  #waiting = new Uint8Array(0);

  constructor(machine: NativeKvmMachine, onOutput: (bytes: Uint8Array) => void) {
    this.#machine = machine;
    this.#onOutput = onOutput;
  }

  /** Throws `RangeError` when more than 1 MiB waits. */
  write(bytes: Uint8Array): void {
    const byteCount = this.#waiting.length + bytes.length;
    if (byteCount > waitingBytesMax)
      throw new RangeError(`${byteCount} bytes wait for the guest's serial port`);
    const joined = new Uint8Array(byteCount);
    joined.set(this.#waiting);
    joined.set(bytes, this.#waiting.length);
    this.#waiting = joined;
    this.pump();
  }

  /** Moves bytes in both directions. */
  pump(): void {
    const output = this.#machine.takeSerialOutput();
    if (output.length > 0) this.#onOutput(output);
    if (this.#waiting.length === 0) return;
    this.#waiting = this.#waiting.subarray(this.#machine.feedSerial(this.#waiting));
  }
}
