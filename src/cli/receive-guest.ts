/** `chkpt receive ADDRESS --qemu SOCKET`: the guest that a `chkpt send` sends, into a QEMU that waits. */
import { QemuVm } from '../adapters/qemu/index.ts';
import { receiveVm } from '../index.ts';
import type { Invocation } from './invocation.ts';
import { securityOf } from './link-argument.ts';
import { migrationFoldersOf, streamsOf } from './migration-argument.ts';
import { printable } from './printable.ts';
import { formatBytes, formatDuration } from './units.ts';

/** Nobody waits for a source that has not heard of the end: the command is over when the guest runs, or a moment later. */
const lingerMs = 5000;

export async function receiveGuest(invocation: Invocation, address: string, socket: string): Promise<void> {
  const { line, common, output, signal } = invocation;
  const security = securityOf(address, line, 'listen');
  const psk = security.psk === undefined ? undefined : { ...security.psk, uses: streamsOf(line) + 1 };
  const vm = await QemuVm.connect(socket);
  try {
    const report = await receiveVm(vm, address, {
      ...security,
      psk,
      ...migrationFoldersOf(line),
      threads: common.threads,
      // Whoever names the QEMU has chosen it for this guest.
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
    if (common.json) await output.json({ command: 'receive', ...report });
    else if (!common.quiet) {
      const { memoryBytes, elapsedMs, remote } = report;
      output.note(
        `received ${formatBytes(memoryBytes)} from ${printable(remote)} in ${formatDuration(elapsedMs)}, the guest runs`,
      );
    }
  } finally {
    await vm.close();
  }
}
