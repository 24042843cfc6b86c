/** `chkpt receive ADDRESS --qemu SOCKET` and `--memory OUTFILE`: what a `chkpt send` sends, into a QEMU that waits or into files. */
import { QemuVm } from '../adapters/qemu/index.ts';
import { type ReceiveReport, type ReceiveVmOptions, receiveVm, type VirtualMachine } from '../index.ts';
import type { Invocation } from './invocation.ts';
import { securityOf } from './link-argument.ts';
import type { MemoryArgument } from './memory-argument.ts';
import { migrationFoldersOf, streamsOf } from './migration-argument.ts';
import { printable } from './printable.ts';
import { ReceivedImages } from './received-images.ts';
import { fileStatesOf } from './state-argument.ts';
import { formatBytes, formatDuration } from './units.ts';

/** Nobody waits for a source that has not heard of the end: the command is over when the guest runs, or a moment later. */
const lingerMs = 5000;

export async function receiveGuest(invocation: Invocation, address: string, socket: string): Promise<void> {
  const { common, output } = invocation;
  const vm = await QemuVm.connect(socket);
  try {
    const report = await receive(invocation, vm, address, {});
    if (common.json) await output.json({ command: 'receive', ...report });
    else if (!common.quiet) output.note(`${summaryOf(report)}, the guest runs`);
  } finally {
    await vm.close();
  }
}

export async function receiveImages(
  invocation: Invocation,
  address: string,
  memory: readonly MemoryArgument[],
): Promise<void> {
  const { line, common, output } = invocation;
  const vm = new ReceivedImages(memory, fileStatesOf(line.all('state')), address);
  try {
    const report = await receive(invocation, vm, address, { onOffer: (offer) => vm.prepare(offer) });
    const regions = vm.regions.map(({ path, base, bytes }) => ({
      path,
      base: Number(base),
      bytes: Number(bytes),
    }));
    const state = vm.values.map(({ context, tag, path, byteCount }) => ({
      ...{ context, tag, path },
      bytes: byteCount,
    }));
    if (common.json) await output.json({ command: 'receive', ...report, memory: regions, state });
    else if (!common.quiet) {
      output.note(`${summaryOf(report)}: ${vm.regions.map(({ path }) => printable(path)).join(', ')}`);
    }
  } finally {
    await vm.close();
  }
}

async function receive(
  { line, common, output, signal }: Invocation,
  vm: VirtualMachine,
  address: string,
  options: Pick<ReceiveVmOptions, 'onOffer'>,
): Promise<ReceiveReport> {
  const security = securityOf(address, line, 'listen');
  const psk = security.psk === undefined ? undefined : { ...security.psk, uses: streamsOf(line) + 1 };
  return await receiveVm(vm, address, {
    ...security,
    psk,
    ...migrationFoldersOf(line),
    ...options,
    threads: common.threads,
    // Whoever names the QEMU, or the files, has chosen them for this guest.
    ignore: ['id'],
    lingerMs,
    signal,
    onListening: (where) => {
      if (common.json) output.note(JSON.stringify({ listening: where }));
      else if (!common.quiet) output.note(`listening at ${printable(where)}`);
    },
    onRefusal: (error, remote) => {
      if (!common.quiet && !common.json)
        output.note(`refused ${printable(remote)}: ${printable(error.message)}`);
    },
  });
}

function summaryOf({ memoryBytes, elapsedMs, remote }: ReceiveReport): string {
  return `received ${formatBytes(memoryBytes)} from ${printable(remote)} in ${formatDuration(elapsedMs)}`;
}
