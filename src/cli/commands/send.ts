/** `chkpt send`: the running guest of a QEMU, to another host. */
import { QemuVm } from '../../adapters/qemu/index.ts';
import { MigrationInDoubtError, type SendReport, sendVm } from '../../index.ts';
import type { Invocation } from '../invocation.ts';
import { isLink, securityOf } from '../link-argument.ts';
import { bandwidthOf, deltaCacheOf, migrationFoldersOf, streamsOf } from '../migration-argument.ts';
import { printable } from '../printable.ts';
import { createProgress } from '../progress.ts';
import { formatBytes, formatDuration } from '../units.ts';
import { usageError } from '../usage-error.ts';

const downtimeDefaultMs = 300;
const pageBytes = 4096;

export async function run(invocation: Invocation): Promise<void> {
  const { line, common, output } = invocation;
  const address = line.operand(0);
  const socket = line.last('qemu');
  if (!isLink(address))
    throw usageError(`${address}: tcp://HOST:PORT, tls://HOST:PORT or unix:PATH is expected`);
  if (socket === undefined) throw usageError('--qemu SOCKET is missing: whose guest is sent');
  const report = await send(invocation, address, socket);
  if (common.json) await output.json({ command: 'send', ...report });
  else if (!common.quiet) {
    const { rounds, bytesSent, downtime, elapsedMs } = report;
    output.note(
      `sent ${formatBytes(bytesSent)} in ${rounds.length} rounds and ${formatDuration(elapsedMs)}: ${printable(address)}, the guest stood still for ${formatDuration(downtime.totalMs)}`,
    );
  }
}

async function send(invocation: Invocation, address: string, socket: string): Promise<SendReport> {
  const { line, common, signal } = invocation;
  const streams = streamsOf(line);
  const security = securityOf(address, line, 'connect');
  const psk = security.psk === undefined ? undefined : { ...security.psk, uses: streams + 1 };
  const options = {
    ...security,
    psk,
    ...migrationFoldersOf(line),
    streams,
    downtimeTargetMs: numberOf(line.last('downtime'), 'downtime', downtimeDefaultMs),
    totalMaxMs: 1000 * numberOf(line.last('limit'), 'limit', 600),
    bandwidth: bandwidthOf(line),
    deltaCache: deltaCacheOf(line),
    strategy: line.has('force') ? ('force' as const) : ('abort' as const),
    threads: common.threads,
    codec: common.codec,
  };
  await using vm = await QemuVm.connect(socket);
  const progress = createProgress('sending', common);
  const totalBytes = Number(vm.memory.byteLength);
  try {
    return await sendVm(vm, address, {
      ...options,
      signal,
      onProgress: ({ phase, pagesLeft, bytesSent }) =>
        progress.update({
          phase: phase === 'connect' ? 'state' : phase === 'commit' ? 'commit' : 'memory',
          doneBytes: totalBytes - pagesLeft * pageBytes,
          totalBytes,
          writtenBytes: bytesSent,
        }),
    });
  } catch (error) {
    progress.stop();
    if (error instanceof MigrationInDoubtError) await askOn(error, invocation);
    throw error;
  } finally {
    progress.stop();
  }
}

/** Until it is known where the guest runs, or somebody has enough of waiting: that changes nothing about who owns it. */
async function askOn(error: MigrationInDoubtError, { output, signal }: Invocation): Promise<void> {
  output.note(
    `${error.code}: the destination was told to run the guest and does not answer; asking on until Ctrl-C`,
  );
  const enough = new Promise<'enough'>((resolve) => {
    if (signal.aborted) resolve('enough');
    signal.addEventListener('abort', () => resolve('enough'), { once: true });
  });
  const end = await Promise.race([error.resolve(), enough]);
  if (end !== 'enough')
    output.note(end === 'moved' ? 'the guest runs there' : 'the guest stayed, and runs here');
}

function numberOf(text: string | undefined, name: string, fallback: number): number {
  if (text === undefined) return fallback;
  const value = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  if (value >= 1) return value;
  throw usageError(`--${name} ${text}: a number above 0 is expected`);
}
