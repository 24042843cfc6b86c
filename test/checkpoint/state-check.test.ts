/** When a machine cannot take what a checkpoint holds: before it is touched, and at the very end. */
import { expect, test } from 'vitest';
import {
  defineState,
  loadVm,
  MemoryStoreSpace,
  saveVm,
  statePart,
  u32,
  type VirtualMachine,
} from '../../src/index.ts';

const state = defineState({ level: u32 });

class Machine implements VirtualMachine {
  readonly id = 'vm';
  readonly cpu = { vendor: 'test', model: 'test' };
  readonly cores = [];
  readonly running = false;
  readonly calls: string[] = [];
  failure: Error | undefined;
  level = 0;
  levelMax = 10;
  endFails = false;
  readonly devices = [
    {
      id: 'tank',
      deviceClass: 'tank',
      contexts: [
        {
          name: 'tank',
          parts: [
            statePart<{ level: number }>({
              state,
              get: () => ({ level: this.level }),
              check: async ({ level }) => {
                this.calls.push('check');
                if (level > this.levelMax) throw new RangeError('too full');
              },
              set: ({ level }) => {
                this.calls.push('set');
                this.level = level;
              },
            }),
          ],
        },
      ],
    },
  ];
  pause = async (): Promise<void> => {};
  resume = async (): Promise<void> => {};
  beginLoad(): void {
    this.calls.push('begin');
    this.failure = new Error('half loaded');
  }
  async endLoad(failure?: Error): Promise<void> {
    this.calls.push(failure === undefined ? 'end' : 'fail');
    if (failure === undefined && this.endFails) throw new Error('the hypervisor says no');
    this.failure = failure;
  }
}

const space = new MemoryStoreSpace();

async function saved(level: number): Promise<void> {
  await saveVm(Object.assign(new Machine(), { level }), space.store('tank'));
}

test('values are checked before the machine is touched', async () => {
  await saved(7);
  const machine = new Machine();
  await loadVm(machine, space.store('tank'));
  expect(machine.calls).toEqual(['check', 'begin', 'set', 'end']);
  expect(machine.level).toBe(7);
});

test('what the machine cannot take leaves it as it is', async () => {
  await saved(11);
  const machine = new Machine();
  await expect(loadVm(machine, space.store('tank'))).rejects.toThrow('too full');
  expect(machine.calls).toEqual(['check']);
  expect(machine.failure).toBeUndefined();
});

test('an end that fails leaves a machine that must not run', async () => {
  await saved(7);
  const machine = Object.assign(new Machine(), { endFails: true });
  await expect(loadVm(machine, space.store('tank'))).rejects.toThrow('the hypervisor says no');
  expect(machine.calls).toEqual(['check', 'begin', 'set', 'end', 'fail']);
  expect(machine.failure).toMatchObject({ message: 'the hypervisor says no' });
  await expect(saveVm(machine, space.store('other'))).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
});
