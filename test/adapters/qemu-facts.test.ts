/** What of a QEMU has to match, and which of them a difference names. */
import { expect, test } from 'vitest';
import { compareFacts, type QemuFacts } from '../../src/adapters/qemu/qemu-facts.ts';

const facts: QemuFacts = {
  version: '7.2.22',
  machine: 'pc-q35-7.2-machine',
  accelerator: 'tcg',
  cpu: { type: 'qemu64-x86_64-cpu', features: '1.EDX=78bfbfd', count: 2 },
  ram: { backend: 'ram', bytes: 2147483648n },
  devices: 'ICH9-LPC\nmch',
};
const cpu = (change: Partial<QemuFacts['cpu']>) => ({ cpu: { ...facts.cpu, ...change } });
const ram = (change: Partial<QemuFacts['ram']>) => ({ ram: { ...facts.ram, ...change } });

const differences: readonly (readonly [string, string, Partial<QemuFacts>])[] = [
  ['CHKPT_VM_MACHINE', 'version', { version: '7.1.0' }],
  ['CHKPT_VM_MACHINE', 'machine', { machine: 'pc-i440fx-7.2-machine' }],
  ['CHKPT_VM_MACHINE', 'accelerator', { accelerator: 'kvm' }],
  ['CHKPT_VM_CPU', 'cpu.type', cpu({ type: 'Nehalem-x86_64-cpu' })],
  ['CHKPT_VM_CPU', 'cpu.features', cpu({ features: '1.EDX=78bfbff' })],
  ['CHKPT_VM_CORES', 'cpu.count', cpu({ count: 4 })],
  ['CHKPT_VM_MACHINE', 'ram.backend', ram({ backend: 'mem0' })],
  ['CHKPT_VM_REGIONS', 'ram.bytes', ram({ bytes: 1073741824n })],
  ['CHKPT_VM_DEVICES', 'devices', { devices: 'ICH9-LPC\nmch\nnvme id=n' }],
];

test.each(differences)('%s names %s', (code, tag, change) => {
  const compare = (): void => compareFacts({ ...facts, ...change }, facts, { anyVersion: false });
  expect(compare).toThrow(expect.objectContaining({ code, details: expect.objectContaining({ tag }) }));
});

test('equal ones pass, and another version where it is wanted', () => {
  compareFacts(facts, facts, { anyVersion: false });
  compareFacts({ ...facts, version: '7.1.0' }, facts, { anyVersion: true });
});
