/** What the devices and processors of the machine are made of: values with a state definition. */
import { type Device, type StateDefinition, type StatePart, statePart } from '../../index.ts';

/** A value together with the definition that saves and loads it. */
export class StateCell<T> {
  readonly definition: StateDefinition<T>;
  value: T;

  constructor(definition: StateDefinition<T>, value: T) {
    this.definition = definition;
    this.value = value;
  }

  /** The cell as a machine hands it to a save or load. */
  get part(): StatePart<never> {
    return statePart<T>({
      state: this.definition,
      get: () => this.value,
      set: (value) => {
        this.value = value;
      },
    });
  }
}

/** Something that changes as the guest runs. Its new state follows from the old one and the ticks gone by. */
export interface Clocked {
  advance(ticks: bigint): void;
}

export interface SyntheticDevice extends Device, Clocked {}

/** 64 bits that depend on every bit of both words (splitmix64): where all values of the machine come from. */
export function mixWords(left: bigint, right: bigint): bigint {
  let word = BigInt.asUintN(64, left ^ (right * 0x9e3779b97f4a7c15n));
  word = BigInt.asUintN(64, (word ^ (word >> 30n)) * 0xbf58476d1ce4e5b9n);
  word = BigInt.asUintN(64, (word ^ (word >> 27n)) * 0x94d049bb133111ebn);
  return word ^ (word >> 31n);
}

/** Number of `value` modulo 2^bits. */
export function lowBits(value: bigint, bits: number): number {
  return Number(BigInt.asUintN(bits, value));
}
