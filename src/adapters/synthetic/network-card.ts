/**
 * A network card. Two definitions share its one context, as in a VMM with device classes: what every PCI
 * device has, with the prefix `pci.`, and what only this card has, with the prefix `nic.`.
 */
import { bool, bytes, defineState, type StateContext, u8, u16, u32, u64, vector } from '../../index.ts';
import { lowBits, mixWords, StateCell, type SyntheticDevice } from './state-cell.ts';

const pciState = defineState(
  {
    vendor: u16,
    device: u16,
    command: u16,
    status: u16,
    baseAddress: vector(u32, 6),
    interrupt: { line: u8, pending: bool },
  },
  { prefix: 'pci.', strict: true },
);

const ring = { base: u64, head: u32, tail: u32 };

const cardState = defineState(
  {
    address: bytes(6),
    link: bool,
    receive: ring,
    transmit: ring,
    frames: { received: u64, transmitted: u64, dropped: u32 },
    multicast: vector(bool, 16),
    lastFrame: bytes(),
  },
  { prefix: 'nic.', strict: true },
);

const ringEntries = 256;

export class NetworkCard implements SyntheticDevice {
  readonly id = 'nic0';
  readonly deviceClass = 'e1000';
  readonly contexts: readonly StateContext[];
  readonly #pci = new StateCell(pciState, {
    vendor: 0x8086,
    device: 0x100e,
    command: 0x0007,
    status: 0x0230,
    baseAddress: Uint32Array.of(0xfeb8_0000, 0, 0xc001, 0, 0, 0),
    interrupt: { line: 11, pending: false },
  });
  readonly #card = new StateCell(cardState, {
    address: Uint8Array.of(0x52, 0x54, 0x00, 0x12, 0x34, 0x56),
    link: true,
    receive: { base: 0x10_0000n, head: 0, tail: ringEntries - 1 },
    transmit: { base: 0x10_1000n, head: 0, tail: 0 },
    frames: { received: 0n, transmitted: 0n, dropped: 0 },
    multicast: Array.from({ length: 16 }, () => false),
    lastFrame: new Uint8Array(0),
  });

  constructor() {
    this.contexts = [{ name: this.id, parts: [this.#pci.part, this.#card.part] }];
  }

  /** Every tick a frame comes in, every third one goes out. */
  advance(ticks: bigint): void {
    const card = this.#card.value;
    card.frames.received += ticks;
    card.frames.transmitted = card.frames.received / 3n;
    card.frames.dropped = lowBits(card.frames.received / 1000n, 32);
    card.receive.head = Number(card.frames.received % BigInt(ringEntries));
    card.receive.tail = (card.receive.head + ringEntries - 1) % ringEntries;
    card.transmit.head = Number(card.frames.transmitted % BigInt(ringEntries));
    card.transmit.tail = card.transmit.head;
    const word = mixWords(0x4e4943n, card.frames.received);
    card.multicast = Array.from({ length: 16 }, (_, bit) => ((word >> BigInt(bit)) & 1n) === 1n);
    card.lastFrame = frameOf(word);
    this.#pci.value.interrupt.pending = ticks > 0n;
    this.#pci.value.status = 0x0230 | (ticks > 0n ? 0x0008 : 0);
  }
}

/** A frame of 60 to 1514 bytes. */
function frameOf(word: bigint): Uint8Array {
  const frame = new Uint8Array(60 + Number(word % 1455n));
  return frame.map((_, index) => lowBits(word >> BigInt(index % 8), 8) ^ (index & 0xff));
}
