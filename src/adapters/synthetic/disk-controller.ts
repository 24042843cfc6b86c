/** A disk controller that owns several contexts: one of its own and one for each drive. */
import {
  array,
  bool,
  defineState,
  f32,
  f64,
  i8,
  i32,
  i64,
  type StateContext,
  string,
  u8,
  u16,
  u32,
  u64,
  vector,
} from '../../index.ts';
import { lowBits, mixWords, StateCell, type SyntheticDevice } from './state-cell.ts';

const slotCount = 4;

const controllerState = defineState({
  capabilities: u64,
  interruptMask: u32,
  busySlots: u32,
  commands: u64,
  slots: array(slotCount, { drive: u8, sector: u64, sectors: u16, write: bool }),
});

const driveState = defineState({
  model: string,
  sectors: u64,
  /** Where the arm is, relative to the middle. */
  position: i64,
  lastSeek: i32,
  celsius: f32,
  /** Mean of all requests, milliseconds. */
  latency: f64,
  trim: i8,
  writeCache: bool,
  /** Sectors that were moved; grows. */
  remapped: vector(u32),
});

const driveSectors = 1n << 32n;

export class DiskController implements SyntheticDevice {
  readonly id = 'disk0';
  readonly deviceClass = 'ahci';
  readonly contexts: readonly StateContext[];
  readonly #controller = new StateCell(controllerState, {
    capabilities: 0xc734_ff05n,
    interruptMask: 0x3,
    busySlots: 0,
    commands: 0n,
    slots: Array.from({ length: slotCount }, () => ({ drive: 0, sector: 0n, sectors: 0, write: false })),
  });
  readonly #drives: readonly Drive[];

  constructor(driveCount: number) {
    this.#drives = Array.from({ length: driveCount }, (_, index) => new Drive(index));
    this.contexts = [
      { name: this.id, parts: [this.#controller.part] },
      ...this.#drives.map((drive, index) => ({
        name: `${this.id}.drive${index}`,
        parts: [drive.cell.part],
      })),
    ];
  }

  advance(ticks: bigint): void {
    const controller = this.#controller.value;
    controller.commands += ticks;
    for (const [index, slot] of controller.slots.entries()) {
      const word = mixWords(BigInt(index), controller.commands);
      slot.drive = this.#drives.length === 0 ? 0 : Number(word % BigInt(this.#drives.length));
      slot.sector = word % driveSectors;
      slot.sectors = 1 + lowBits(word >> 32n, 8);
      slot.write = (word >> 40n) % 2n === 1n;
    }
    controller.busySlots = lowBits(controller.commands, slotCount);
    for (const drive of this.#drives) drive.advance(controller.commands);
  }
}

class Drive {
  readonly cell: StateCell<Parameters<typeof driveState.encode>[0]>;
  readonly #index: number;

  constructor(index: number) {
    this.#index = index;
    this.cell = new StateCell(driveState, {
      model: `Synthetic drive ${index}`,
      sectors: driveSectors,
      position: 0n,
      lastSeek: 0,
      celsius: 31.5,
      latency: 0,
      trim: 0,
      writeCache: true,
      remapped: new Uint32Array(0),
    });
  }

  advance(commands: bigint): void {
    const drive = this.cell.value;
    const word = mixWords(0x4452n + BigInt(this.#index), commands);
    const target = (word % driveSectors) - driveSectors / 2n;
    drive.lastSeek = Number(BigInt.asIntN(32, target - drive.position));
    drive.position = target;
    drive.celsius = Math.fround(31.5 + Number(word % 160n) / 16);
    drive.latency += (Math.abs(drive.lastSeek) / 2 ** 31 - drive.latency) / 8;
    drive.trim = Number(BigInt.asIntN(8, word));
    drive.writeCache = word % 2n === 0n;
    if (drive.remapped.length < 64) drive.remapped = Uint32Array.of(...drive.remapped, lowBits(word, 32));
  }
}
