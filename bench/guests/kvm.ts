/** KVM guests for tests and measurements. */
import { readFileSync } from 'node:fs';
import type { KvmDevice } from '../../src/adapters/kvm/index.ts';
import { KvmVm, type KvmVmOptions } from '../../src/adapters/kvm/index.ts';
import { defineState, statePart, u32 } from '../../src/index.ts';
import { assembleGuest, guestAddress } from './assembled.ts';

/** Why there can be no KVM machine; undefined when there can. */
export async function whyNoKvm(): Promise<string | undefined> {
  try {
    await using _ = await KvmVm.create();
    return undefined;
  } catch (error) {
    return String(error);
  }
}

/** Options that start a guest of guests/*.S on all cores. */
export function guestOptions(name: string): KvmVmOptions {
  const bytes = readFileSync(assembleGuest(name, 'bin'));
  return { image: { bytes, address: guestAddress, mode: 'protected', cores: 'all' } };
}

const latchState = defineState({ value: u32 });

/** A device of four ports that keeps what was written last. */
export class Latch implements KvmDevice {
  readonly id = 'latch';
  readonly deviceClass = 'test.latch';
  readonly ports = { first: 0x500, count: 4 };
  value = 0;
  readonly contexts = [
    {
      name: 'latch',
      parts: [
        statePart({
          state: latchState,
          get: () => ({ value: this.value }),
          set: ({ value }) => {
            this.value = value;
          },
        }),
      ],
    },
  ];

  read(): number {
    return this.value;
  }

  write(_access: unknown, value: bigint): void {
    this.value = Number(value);
  }
}
