/** `chkpt receive`: checkpoints that other processes send, into a store; machines that they move, into a QEMU or files. */

import type { TwoKeyOptions } from '../../checkpoint/open.ts';
import {
  CheckpointError,
  type ReceiveCheckpointReport,
  receiveCheckpoint,
  type Store,
  type StreamStore,
} from '../../index.ts';
import type { Invocation } from '../invocation.ts';
import { keysOf, targetKeysOf } from '../key-argument.ts';
import { isLink, openLink } from '../link-argument.ts';
import { parseMemoryArguments } from '../memory-argument.ts';
import { printable } from '../printable.ts';
import { createProgress } from '../progress.ts';
import { qemuSocketOf } from '../qemu-guest.ts';
import { receiveGuest, receiveImages } from '../receive-guest.ts';
import { refuseSharedOutput, storeOf } from '../store-argument.ts';
import { formatBytes, formatDuration } from '../units.ts';
import { usageError } from '../usage-error.ts';

const countMax = 1_000_000;
const uuidPlace = '{uuid}';

export async function run(invocation: Invocation): Promise<void> {
  const { line, common, output } = invocation;
  const [url, target] = [line.operand(0), line.operand(1)];
  const socket = qemuSocketOf(line, ['memory', 'state']);
  const memory = parseMemoryArguments(line.all('memory'));
  if (!isLink(url))
    throw usageError(`${url}: an address is expected: tcp://HOST:PORT, tls://HOST:PORT or unix:PATH`);
  if (socket !== undefined || memory.length > 0) {
    const key = ['key-file', 'to-key-file', 'to-plain'].find((name) => line.has(name));
    if (key !== undefined) throw usageError(`--${key} goes with STORE: machines are moved, not kept`);
    if (target !== '' || line.has('count'))
      throw usageError('--qemu and --memory take one machine, and no STORE');
    return await (socket === undefined
      ? receiveImages(invocation, url, memory)
      : receiveGuest(invocation, url, socket));
  }
  if (target === '')
    throw usageError('STORE is missing: chkpt receive ADDRESS STORE, or --memory OUTFILE, or --qemu SOCKET');
  if (line.has('state')) throw usageError('--state goes with --memory');
  const other = ['streams', 'journal', 'witness'].find((name) => line.has(name));
  if (other !== undefined) throw usageError(`--${other} goes with --memory and --qemu`);
  const count = countOf(line.last('count'));
  if (count > 1 && line.has('psk-file'))
    throw usageError('a one-time key is for one checkpoint: no --count with it');
  const sample = target.replaceAll(uuidPlace, '00000000-0000-4000-8000-000000000000');
  const to = storeOf(sample);
  if (isLink(to.url)) throw usageError(`${target}: a checkpoint is received into a store that keeps it`);
  refuseSharedOutput(to, common);
  // Who fails to send is not counted when several are expected: the next one may do better.
  const keys = { key: keysOf(line), toKey: targetKeysOf(line) ?? ('none' as const) };
  const source = openLink(url, invocation, 'listen', count === 1 ? 1 : Number.POSITIVE_INFINITY);
  const received: object[] = [];
  try {
    while (received.length < count) {
      const report = await receiveOne(
        source,
        (uuid) => storeOf(target.replaceAll(uuidPlace, uuid)),
        invocation,
        keys,
      ).catch((error: unknown) => {
        if (count === 1 || !isOfSender(error)) throw error;
        output.note(`not received: ${printable(error.message)}`);
      });
      if (report === undefined) continue;
      received.push(documentOf(report));
      if (!common.json && !common.quiet) output.note(summaryOf(report));
    }
  } finally {
    await source.close();
  }
  if (common.json) await output.json({ command: 'receive', source: url, checkpoints: received });
}

async function receiveOne(
  source: StreamStore,
  storeFor: (uuid: string) => Store,
  { common, signal }: Invocation,
  keys: TwoKeyOptions,
): Promise<ReceiveCheckpointReport> {
  const progress = createProgress('receiving', common);
  try {
    return await receiveCheckpoint(source, ({ uuid }) => storeFor(uuid), {
      ...{ threads: common.threads, signal, ...keys },
      onProgress: ({ phase, memoryBytesDone, memoryBytes }) =>
        progress.update({ phase, doneBytes: memoryBytesDone, totalBytes: memoryBytes }),
    });
  } finally {
    progress.stop();
  }
}

const senderCodes: ReadonlySet<string> = new Set([
  ...['CHKPT_LINK_LOST', 'CHKPT_TIMEOUT', 'CHKPT_PEER_REFUSED', 'CHKPT_PEER_PROTOCOL', 'CHKPT_VERSION'],
]);

/** The sender has failed, not this side. */
function isOfSender(error: unknown): error is CheckpointError {
  return error instanceof CheckpointError && (error.kind === 'damaged' || senderCodes.has(error.code));
}

function countOf(text: string | undefined): number {
  if (text === undefined) return 1;
  const count = /^[1-9]\d{0,6}$/.test(text) ? Number(text) : 0;
  if (count >= 1 && count <= countMax) return count;
  throw usageError(`--count ${text}: a number from 1 to ${countMax} is expected`);
}

function documentOf({ url, header, root, bytes, acknowledged, elapsedMs }: ReceiveCheckpointReport): object {
  const { uuid, parent } = header;
  return {
    store: url,
    uuid,
    parent: parent?.uuid ?? null,
    root,
    checkpointBytes: bytes,
    acknowledged,
    elapsedMs,
  };
}

function summaryOf({ url, bytes, elapsedMs, acknowledged }: ReceiveCheckpointReport): string {
  const told = acknowledged ? '' : '; the sender was not told, because the connection was lost';
  return `received ${formatBytes(bytes)} in ${formatDuration(elapsedMs)}: ${printable(url)}${told}`;
}
