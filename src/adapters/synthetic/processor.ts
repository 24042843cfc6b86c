/** A virtual processor: registers that every x86-64 has, and state that depends on the hardware beneath. */
import { bool, bytes, type Core, defineState, i64, u8, u16, u64, vector } from '../../index.ts';
import { type Clocked, lowBits, mixWords, StateCell } from './state-cell.ts';

const generalCount = 16;
const vectorBytes = 512;

const independentState = defineState({
  instructionPointer: u64,
  flags: u64,
  general: vector(u64, generalCount),
  privilege: u8,
  halted: bool,
});

const dependentState = defineState({
  timestamp: u64,
  timestampOffset: i64,
  floatControl: u16,
  modelSpecific: vector(u64, 8),
  vectorRegisters: bytes(vectorBytes),
});

export class Processor implements Core, Clocked {
  readonly independent;
  readonly dependent;
  readonly #index: bigint;
  readonly #registers = new StateCell(independentState, {
    instructionPointer: 0xffff_fff0n,
    flags: 2n,
    general: new BigUint64Array(generalCount),
    privilege: 0,
    halted: false,
  });
  readonly #hardware = new StateCell(dependentState, {
    timestamp: 0n,
    timestampOffset: 0n,
    floatControl: 0x37f,
    modelSpecific: new BigUint64Array(8),
    vectorRegisters: new Uint8Array(vectorBytes),
  });

  constructor(index: number) {
    this.#index = BigInt(index);
    this.independent = [this.#registers.part];
    this.dependent = [this.#hardware.part];
  }

  advance(ticks: bigint): void {
    const registers = this.#registers.value;
    const hardware = this.#hardware.value;
    hardware.timestamp = BigInt.asUintN(64, hardware.timestamp + ticks * 1000n);
    hardware.timestampOffset = -BigInt.asIntN(63, hardware.timestamp >> 3n);
    const seed = mixWords(this.#index, hardware.timestamp);
    registers.instructionPointer = 0xffff_ffff_8100_0000n + (seed & 0xff_ffffn);
    registers.flags = 2n | (seed & 0x8d5n);
    registers.general = registers.general.map((value, index) => mixWords(value + seed, BigInt(index)));
    registers.privilege = (seed & 3n) === 0n ? 3 : 0;
    registers.halted = (seed & 4n) === 0n;
    hardware.floatControl = 0x37f ^ lowBits(seed >> 8n, 3);
    hardware.modelSpecific = hardware.modelSpecific.map((value, index) =>
      mixWords(seed, value + BigInt(index)),
    );
    hardware.vectorRegisters = hardware.vectorRegisters.map((value, index) =>
      lowBits((seed >> BigInt(index % 57)) + BigInt(value), 8),
    );
  }
}
