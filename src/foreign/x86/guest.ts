/** An x86 guest as mappings read it, whatever VMM it comes from. */
import type { ForeignContext } from '../foreign-format.ts';
import type { CoreSource } from './core-state.ts';
import { coreOfKvm } from './kvm-core-source.ts';
import { type Fields, TakenFields } from './taken-fields.ts';

/** Contexts that tell of the checkpoint, not of the guest. */
const aboutCheckpoint: ReadonlySet<string> = new Set(['header', 'devices']);

/** A device of a PC, with the fields that the kernel's struct has, or `UartState` of native/core/kvm/uart_16550.h. */
export interface PcDevice extends Fields {
  /** See `TakenFields.refuse`. */
  refuse(reason: string): void;
}

export interface X86Guest {
  readonly cores: readonly CoreSource[];
  /** `pic0`, `pic1`, `ioapic`, `pit`, `serial0`, as far as they are there. */
  device(name: string): PcDevice | undefined;
  /** What nobody has taken: see taken-fields.ts. */
  readonly lost: readonly string[];
}

/** What `chkpt/kvm` saves, and whatever else has its names. */
export function guestOfKvm(contexts: readonly ForeignContext[]): X86Guest {
  const all = takenContexts(contexts);
  const cores: CoreSource[] = [];
  for (;;) {
    const index = cores.length;
    const core = coreOfKvm(all.get(`core${index}`), all.get(`core${index}.arch`));
    if (core === undefined) break;
    cores.push(core);
  }
  return {
    cores,
    device: (name) => all.get(name),
    get lost() {
      return [...all.values()].flatMap(({ lost }) => lost);
    },
  };
}

/** By name, in order, without those that tell of the checkpoint. */
export function takenContexts(contexts: readonly ForeignContext[]): Map<string, TakenFields> {
  const own = contexts.filter(({ name }) => !aboutCheckpoint.has(name));
  return new Map(own.map((context) => [context.name, TakenFields.ofContext(context)]));
}
