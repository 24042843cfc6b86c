/** `chkpt send`: the running guest of a QEMU, or RAM images and values, to another host. */
import { basename } from 'node:path';
import { QemuVm } from '../../adapters/qemu/index.ts';
import {
  CheckpointError,
  MigrationInDoubtError,
  type SendReport,
  type SendVmOptions,
  sendVm,
  type VirtualMachine,
} from '../../index.ts';
import type { Invocation } from '../invocation.ts';
import { isLink, securityOf } from '../link-argument.ts';
import { parseMemoryArguments } from '../memory-argument.ts';
import { bandwidthOf, deltaCacheOf, migrationFoldersOf, streamsOf } from '../migration-argument.ts';
import { showPlan } from '../migration-plan.ts';
import type { ParsedLine } from '../parse-line.ts';
import { printable } from '../printable.ts';
import { createProgress } from '../progress.ts';
import { qemuSocketOf } from '../qemu-guest.ts';
import { RamImages } from '../ram-images.ts';
import { SentImages } from '../sent-images.ts';
import { fileStatesOf } from '../state-argument.ts';
import { formatBytes, formatDuration } from '../units.ts';
import { usageError } from '../usage-error.ts';

const downtimeDefaultMs = 300;
const pageBytes = 4096;

export async function run(invocation: Invocation): Promise<void> {
  const { line, common, output } = invocation;
  const address = line.operand(0);
  const socket = qemuSocketOf(line, ['memory', 'state', 'id']);
  if (!isLink(address))
    throw usageError(`${address}: tcp://HOST:PORT, tls://HOST:PORT or unix:PATH is expected`);
  if (line.has('plan')) return await plan(invocation, address, socket);
  if (line.has('window')) throw usageError('--window goes with --plan');
  const report = await (socket === undefined
    ? sendImages(invocation, address)
    : sendQemu(invocation, address, socket));
  if (common.json) await output.json({ command: 'send', ...report });
  else if (!common.quiet) {
    const { rounds, bytesSent, downtime, elapsedMs } = report;
    const stood =
      socket === undefined ? '' : `, the guest stood still for ${formatDuration(downtime.totalMs)}`;
    output.note(
      `sent ${formatBytes(bytesSent)} in ${rounds.length} rounds and ${formatDuration(elapsedMs)}: ${printable(address)}${stood}`,
    );
  }
}

async function sendQemu(invocation: Invocation, address: string, socket: string): Promise<SendReport> {
  const options = optionsOf(invocation, address);
  await using vm = await QemuVm.connect(socket);
  return await send(invocation, vm, vm.memory.byteLength, address, options);
}

async function sendImages(invocation: Invocation, address: string): Promise<SendReport> {
  const options = optionsOf(invocation, address);
  return await withImages(invocation, (vm) => send(invocation, vm, vm.memory.byteLength, address, options));
}

async function withImages<T>({ line, signal }: Invocation, use: (vm: SentImages) => Promise<T>): Promise<T> {
  const memory = parseMemoryArguments(line.all('memory'));
  const [first] = memory;
  if (first === undefined) throw usageError('--qemu SOCKET or --memory RAMFILE is missing: what is sent');
  const states = fileStatesOf(line.all('state'));
  const id = line.last('id') ?? basename(first.path);
  const images = await RamImages.open(memory);
  try {
    const vm = await SentImages.open(images, { id, states, signal });
    try {
      return await use(vm);
    } finally {
      await vm.close();
    }
  } catch (error) {
    if (!(error instanceof CheckpointError && error.code === 'CHKPT_VM_RUNNING')) throw error;
    const what = 'somebody wrote to the RAM image while it was handed over: whoever does must stand still';
    throw new CheckpointError('CHKPT_VM_RUNNING', what, { details: { path: first.path }, cause: error });
  } finally {
    await images.close();
  }
}

async function plan(invocation: Invocation, address: string, socket: string | undefined): Promise<void> {
  const options = { ...optionsOf(invocation, address), windowMs: windowOf(invocation.line) };
  if (socket === undefined) {
    return await withImages(invocation, (vm) => showPlan(invocation, vm, address, options));
  }
  await using vm = await QemuVm.connect(socket);
  await showPlan(invocation, vm, address, options);
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
