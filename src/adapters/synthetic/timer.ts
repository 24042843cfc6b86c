/**
 * An i8254-like interval timer. Its `ticks` are the clock of the machine: how many pages the guest has
 * written in its life, over all saves and loads.
 */
import { array, bool, defineState, type StateContext, type StateOf, u8, u16, u64 } from '../../index.ts';
import { lowBits, StateCell, type SyntheticDevice } from './state-cell.ts';

const timerState = defineState({
  ticks: u64,
  speaker: bool,
  interruptLine: bool,
  channels: array(3, { count: u16, reload: u16, latch: u16, mode: u8, gate: bool, decimal: bool }),
});

type Channel = StateOf<typeof timerState>['channels'][number];

export class Timer implements SyntheticDevice {
  readonly id = 'timer0';
  readonly deviceClass = 'i8254';
  readonly contexts: readonly StateContext[];
  readonly #cell = new StateCell(timerState, {
    ticks: 0n,
    speaker: false,
    interruptLine: false,
    channels: [channel(0x2e9c, 2), channel(0x12, 2), channel(0x528, 3)],
  });

  constructor() {
    this.contexts = [{ name: this.id, parts: [this.#cell.part] }];
  }

  get ticks(): bigint {
    return this.#cell.value.ticks;
  }

  advance(ticks: bigint): void {
    const timer = this.#cell.value;
    timer.ticks += ticks;
    for (const one of timer.channels) countDown(one, ticks);
    timer.interruptLine = timer.channels.some(({ count, reload }) => count === reload);
    timer.speaker = (timer.ticks & 1n) === 1n;
  }
}

function channel(reload: number, mode: number): Channel {
  return { count: reload, reload, latch: 0, mode, gate: true, decimal: false };
}

/** Counts from `reload` to 1 and starts again. */
function countDown(one: Channel, ticks: bigint): void {
  one.latch = one.count;
  const passed = BigInt(one.reload - one.count) + ticks;
  one.count = one.reload - lowBits(passed % BigInt(one.reload), 16);
}
