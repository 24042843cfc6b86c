/** `chkpt send`: the running guest of a QEMU, to another host. */
import { QemuVm } from '../../adapters/qemu/index.ts';
import {
  MigrationInDoubtError,
  type SendReport,
  type SendVmOptions,
  sendVm,
  type VirtualMachine,
} from '../../index.ts';
import type { Invocation } from '../invocation.ts';
import { isLink, securityOf } from '../link-argument.ts';
import { bandwidthOf, deltaCacheOf, migrationFoldersOf, streamsOf } from '../migration-argument.ts';
import { showPlan } from '../migration-plan.ts';
import type { ParsedLine } from '../parse-line.ts';
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
  if (line.has('plan')) return await planQemu(invocation, address, socket);
  if (line.has('window')) throw usageError('--window goes with --plan');
  const report = await sendQemu(invocation, address, socket);
  if (common.json) await output.json({ command: 'send', ...report });
  else if (!common.quiet) {
    const { rounds, bytesSent, downtime, elapsedMs } = report;
    output.note(
      `sent ${formatBytes(bytesSent)} in ${rounds.length} rounds and ${formatDuration(elapsedMs)}: ${printable(address)}, the guest stood still for ${formatDuration(downtime.totalMs)}`,
    );
  }
}

async function sendQemu(invocation: Invocation, address: string, socket: string): Promise<SendReport> {
  const options = optionsOf(invocation, address);
  await using vm = await QemuVm.connect(socket);
  return await send(invocation, vm, vm.memory.byteLength, address, options);
}

async function planQemu(invocation: Invocation, address: string, socket: string): Promise<void> {
  const options = optionsOf(invocation, address);
  const windowMs = windowOf(invocation.line);
  await using vm = await QemuVm.connect(socket);
  await showPlan(invocation, vm, address, { ...options, windowMs });
}

function optionsOf({ line, common }: Invocation, address: string): SendVmOptions {
  const streams = streamsOf(line);
  const security = securityOf(address, line, 'connect');
  return {
    ...security,
    psk: security.psk === undefined ? undefined : { ...security.psk, uses: streams + 1 },
    ...migrationFoldersOf(line),
    streams,
    downtimeTargetMs: numberOf(line.last('downtime'), 'downtime', downtimeDefaultMs),
    totalMaxMs: 1000 * numberOf(line.last('limit'), 'limit', 600),
    bandwidth: bandwidthOf(line),
    deltaCache: deltaCacheOf(line),
    strategy: line.has('force') ? 'force' : 'abort',
    threads: common.threads,
    codec: common.codec,
  };
}

async function send(
  invocation: Invocation,
  vm: VirtualMachine,
  memoryBytes: bigint,
  address: string,
  options: SendVmOptions,
): Promise<SendReport> {
  const { common, signal } = invocation;
  const progress = createProgress('sending', common);
  const totalBytes = Number(memoryBytes);
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

/** Of a plan, milliseconds. */
function windowOf(line: ParsedLine): number {
  const windowMs = numberOf(line.last('window'), 'window', 1000);
  if (windowMs >= 50 && windowMs <= 60_000) return windowMs;
  throw usageError(`--window ${windowMs}: 50 to 60000 milliseconds are expected`);
}

function numberOf(text: string | undefined, name: string, fallback: number): number {
  if (text === undefined) return fallback;
  const value = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  if (value >= 1) return value;
  throw usageError(`--${name} ${text}: a number above 0 is expected`);
}
