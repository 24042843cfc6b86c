/** A header that no machine of this version can have: forged, because nothing here writes one. */
import { expect, test } from 'vitest';
import { headerContext, headerOf, headerState } from '../../src/checkpoint/vm-header.ts';
import { devicesContext, tableTags } from '../../src/checkpoint/vm-plan.ts';
import {
  type LoadVmOptions,
  loadVm,
  MemoryStoreSpace,
  openCheckpoint,
  type VirtualMachine,
} from '../../src/index.ts';

const space = new MemoryStoreSpace();
const calls: string[] = [];

const machine: VirtualMachine = {
  id: 'vm',
  cpu: { vendor: 'GenuineIntel', model: 'Xeon(R) (2)' },
  cores: [],
  devices: [],
  running: false,
  failure: undefined,
  pause: async () => {},
  resume: async () => {},
  beginLoad: () => void calls.push('begin'),
  endLoad: async () => void calls.push('end'),
};

type Header = ReturnType<typeof headerOf>;

async function refusal(change: Partial<Header>, options: LoadVmOptions = {}): Promise<unknown> {
  const store = space.store('forged');
  const checkpoint = await openCheckpoint(store, { mode: 'save' });
  const header = await checkpoint.openContext(headerContext);
  await header.save(headerState, { ...headerOf(machine, [], 'test'), ...change });
  await header.close();
  const devices = await checkpoint.openContext(devicesContext);
  await devices.saveAll(Object.fromEntries(tableTags([])));
  await devices.close();
  await checkpoint.commit();
  return await loadVm(machine, store, options).catch((error: unknown) => error);
}

test('pages of another size are CHKPT_VM_PAGE_SIZE whatever is ignored or skipped, and the machine is not touched', async () => {
  const page = { bytes: 16_384 };
  const all: LoadVmOptions = { ignore: ['id', 'cpu'], skip: ['memory', 'devices', 'cores'] };
  for (const options of [{}, all]) {
    expect(await refusal({ page }, options)).toMatchObject({
      code: 'CHKPT_VM_PAGE_SIZE',
      kind: 'mismatch',
      details: { store: 'mem:forged', context: 'header', expected: 4096, actual: 16_384 },
    });
  }
  expect(calls).toEqual([]);
  // Only the page size was in the way.
  expect(await refusal({})).toMatchObject({ url: 'mem:forged' });
  expect(calls).toEqual(['begin', 'end']);
});

test('an error names the store, and each detail once, also when they hold parentheses', async () => {
  const cpu = { ...machine.cpu, model: 'Core(TM) i7 (4)' };
  expect(await refusal({ cpu })).toMatchObject({
    code: 'CHKPT_VM_CPU',
    message:
      'the checkpoint has another CPU model than the machine ' +
      '(store mem:forged, context header, expected Xeon(R) (2), actual Core(TM) i7 (4))',
  });
});
