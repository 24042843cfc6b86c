import type { GuestMemory, VirtualMachine } from '../src/index.ts';

/** A machine that is nothing but memory. */
export function machineOf(memory: GuestMemory): VirtualMachine {
  return {
    id: 'bench',
    cpu: { vendor: 'bench', model: 'bench' },
    memory,
    cores: [],
    devices: [],
    running: false,
    pause: async () => {},
    resume: async () => {},
    beginLoad: () => {},
    endLoad: () => {},
  };
}
