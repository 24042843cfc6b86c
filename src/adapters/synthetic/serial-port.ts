/** A 16550-like serial port: somebody types at the speed of the machine's clock, and the guest answers. */
import { bool, bytes, defineState, i16, type StateContext, string, u8, u16, u32 } from '../../index.ts';
import { lowBits, mixWords, StateCell, type SyntheticDevice } from './state-cell.ts';

const fifoBytes = 16;

const serialState = defineState({
  divisor: u16,
  lineControl: u8,
  interruptEnable: u8,
  flags: { dataReady: bool, overrun: bool, transmitterEmpty: bool },
  received: bytes(fifoBytes),
  receivedBytes: u32,
  lastLine: string,
  /** Of the sampling point, in sixteenths of a bit. */
  skew: i16,
});

export class SerialPort implements SyntheticDevice {
  readonly id = 'serial0';
  readonly deviceClass = '16550';
  readonly contexts: readonly StateContext[];
  readonly #cell = new StateCell(serialState, {
    divisor: 1,
    lineControl: 0x03,
    interruptEnable: 0x01,
    flags: { dataReady: false, overrun: false, transmitterEmpty: true },
    received: new Uint8Array(fifoBytes),
    receivedBytes: 0,
    lastLine: 'login: ',
    skew: 0,
  });

  constructor() {
    this.contexts = [{ name: this.id, parts: [this.#cell.part] }];
  }

  advance(ticks: bigint): void {
    const port = this.#cell.value;
    // Only the last FIFO's worth of what arrived can still be seen.
    const arrived = lowBits(ticks, 16);
    for (let index = Math.max(0, arrived - fifoBytes); index < arrived; index += 1) {
      port.received[(port.receivedBytes + index) % fifoBytes] = this.#byteAt(port.receivedBytes + index);
    }
    port.receivedBytes = (port.receivedBytes + arrived) % 2 ** 32;
    port.flags = {
      dataReady: arrived > 0,
      overrun: arrived > fifoBytes,
      transmitterEmpty: arrived % 2 === 0,
    };
    port.lastLine = `${port.receivedBytes} bytes, thank you · ${hexOf(port.received)}`;
    port.skew = (port.receivedBytes % 33) - 16;
  }

  #byteAt(index: number): number {
    return lowBits(mixWords(0x53455249n, BigInt(index)), 8);
  }
}

function hexOf(data: Uint8Array): string {
  return Array.from(data, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
