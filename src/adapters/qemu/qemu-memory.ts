/** Where the RAM of a QEMU lies: in which file or memfd, and how the machine maps it. */
import { readdir, readlink, stat, statfs } from 'node:fs/promises';
import { isAbsolute, resolve } from 'node:path';
import { fromSystemError } from '../../errors/index.ts';
import { CheckpointError, type FileRegion, GuestMemory } from '../../index.ts';
import { countOf, textOf } from './answer.ts';
import { childrenOf, getProperty, type QemuFacts } from './qemu-facts.ts';
import type { QmpClient } from './qmp-client.ts';

/** Of `statfs(2)`: linux/magic.h. */
const hugetlbfsMagic = 0x958458f6;

/** A guest-physical range and where it starts in the memory-backend, bytes. */
interface RamRange {
  readonly base: bigint;
  readonly bytes: bigint;
  readonly offset: number;
}

/**
 * The regions of guest memory for `GuestMemory.map`: QEMU's PC machines map one part of RAM at 0 and the rest at 4 GiB.
 *
 * Throws `CHKPT_QEMU_MEMORY`, `CHKPT_UNSUPPORTED` for other architectures, `CHKPT_PERMISSION`.
 */
export async function findMemory(
  qmp: QmpClient,
  ram: QemuFacts['ram'],
  processId: number | undefined,
): Promise<FileRegion[]> {
  const ranges = await readRanges(qmp, ram.bytes);
  const file = await findFile(qmp, ram, processId);
  return ranges.map((range) => ({ ...range, file }));
}

/**
 * RAM through its file. Reading and writing it costs far less than mapping it: a mapping of ours gets 4 KiB pages by faults
 * (docs/performance.md, section 9). Files of hugetlbfs can only be mapped.
 */
export async function openMemory(files: readonly FileRegion[]): Promise<GuestMemory> {
  const kinds = await Promise.all(files.map(({ file }) => statfs(String(file))));
  if (kinds.some(({ type }) => type === hugetlbfsMagic)) return await GuestMemory.map(files);
  return await GuestMemory.openFiles(files, { writable: true });
}

async function readRanges(qmp: QmpClient, ramBytes: bigint): Promise<RamRange[]> {
  const aliases = (await childrenOf(qmp, '/machine/unattached'))
    .map(({ name }) => name)
    .filter((name) => name === 'ram-below-4g[0]' || name === 'ram-above-4g[0]')
    .sort()
    .reverse();
  const ranges: RamRange[] = [];
  let offset = 0n;
  for (const name of aliases) {
    const path = `/machine/unattached/${name}`;
    const base = BigInt(countOf(await getProperty(qmp, path, 'addr')));
    const bytes = BigInt(countOf(await getProperty(qmp, path, 'size')));
    ranges.push({ base, bytes, offset: Number(offset) });
    offset += bytes;
  }
  if (offset === ramBytes) return ranges;
  throw new CheckpointError(
    'CHKPT_UNSUPPORTED',
    'this machine type maps its RAM in a way that is not known: PC machines are',
  );
}

async function findFile(
  qmp: QmpClient,
  ram: QemuFacts['ram'],
  processId: number | undefined,
): Promise<string> {
  const path = `/objects/${ram.backend}`;
  const type = textOf(await getProperty(qmp, path, 'type'));
  if (type === 'memory-backend-file') {
    return await findBackendFile(textOf(await getProperty(qmp, path, 'mem-path')), ram.bytes, processId);
  }
  if (type !== 'memory-backend-memfd')
    throw unreachable(`RAM is a ${type}, not memory-backend-memfd or -file`);
  if (processId === undefined)
    throw unreachable('the socket does not tell the process id of QEMU: give it as `pid`');
  return await findDescriptor(processId, '/memfd:memory-backend-memfd', ram.bytes);
}

/** `mem-path` as QEMU sees it: relative to its folder; in a folder it makes a file that has no name afterwards. */
async function findBackendFile(
  memPath: string,
  bytes: bigint,
  processId: number | undefined,
): Promise<string> {
  const known = processId === undefined ? undefined : `/proc/${processId}`;
  if (!isAbsolute(memPath) && known === undefined)
    throw unreachable(`mem-path=${memPath} is relative, and the socket does not tell the process id of QEMU`);
  const folder = isAbsolute(memPath) ? '/' : await readlink(`${known}/cwd`).catch(() => '/');
  const file = resolve(folder, memPath);
  if (processId !== undefined && (await stat(file).catch(() => undefined))?.isDirectory())
    return await findDescriptor(processId, `${file}/qemu_back_mem.`, bytes);
  if (await isFileOf(file, bytes)) return file;
  throw unreachable(`${file} is not a file of ${bytes} bytes here`);
}

/** The descriptor of the process whose file has a name that starts so, as a path that opens it. */
async function findDescriptor(processId: number, start: string, bytes: bigint): Promise<string> {
  const folder = `/proc/${processId}/fd`;
  const found: string[] = [];
  try {
    for (const name of await readdir(folder)) {
      const path = `${folder}/${name}`;
      const target = await readlink(path).catch(() => '');
      if (target.startsWith(start) && (await isFileOf(path, bytes))) found.push(path);
    }
  } catch (error) {
    throw fromSystemError(error, `cannot look at the descriptors of process ${processId}`, { path: folder });
  }
  const [first] = found;
  if (found.length === 1 && first !== undefined) return first;
  throw unreachable(
    `process ${processId} has ${found.length} files ${start}… of ${bytes} bytes, one is expected`,
  );
}

async function isFileOf(path: string, bytes: bigint): Promise<boolean> {
  const status = await stat(path).catch(() => undefined);
  return status?.isFile() === true && BigInt(status.size) === bytes;
}

function unreachable(what: string): CheckpointError {
  return new CheckpointError('CHKPT_QEMU_MEMORY', what);
}
