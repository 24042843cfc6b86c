/**
 * The destination of a measured migration, in a process of its own.
 *
 *     node migrate-child.js KIND MEMORY_BYTES URL JOURNAL_FOLDER      KIND: idle, or what the writers choose
 *
 * Says `{ address }` when it listens and `{ report }` when the guest is whole, over the channel of `fork`.
 */

import type { Arrival } from './migrate.ts';

const { receiveVm } = await import('../src/index.ts');
const { untouchedGuest } = await import('./guest.ts');
const { machineOf } = await import('./memory-machine.ts');
const { SyntheticVm } = await import('../src/adapters/synthetic/index.ts');

const [kind, bytesText, url, journal] = process.argv.slice(2) as [string, string, string, string];
const memoryBytes = Number(bytesText);
const vm =
  kind === 'idle'
    ? machineOf(untouchedGuest(memoryBytes))
    : await SyntheticVm.create({ id: 'bench', memoryBytes, pagesPerSecond: 0 });
const begin = process.cpuUsage();
const report = await receiveVm(vm, url, {
  journal,
  lingerMs: 2000,
  onListening: (address) => process.send?.({ address }),
});
await report.postcopy?.resident;
const { user, system } = process.cpuUsage(begin);
const waits = [...(report.postcopy?.waits() ?? [])];
const arrival: Arrival = { cpuSeconds: (user + system) / 1e6, waits };
process.send?.({ arrival });
