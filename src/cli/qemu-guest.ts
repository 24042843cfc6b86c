/** `--qemu SOCKET`: a QEMU guest saved where it runs, or loaded into a QEMU that waits for it. */
import { QemuVm } from '../adapters/qemu/index.ts';
import type { ScrubOptions } from '../checkpoint/scrub.ts';
import {
  type IdentityOptions,
  type LoadReport,
  loadVm,
  type Progress,
  type SaveReport,
  type SkipPart,
  type Store,
  saveVm,
} from '../index.ts';
import type { CommonOptions } from './common-options.ts';
import type { ParsedLine } from './parse-line.ts';
import type { ProgressView } from './progress.ts';
import { checkScrub } from './scrub-argument.ts';
import { usageError } from './usage-error.ts';

/** What both directions need. */
export interface QemuWork {
  readonly socket: string;
  readonly store: Store;
  /** Save: the checkpoint to build on, then where parents of it are that have moved. Load: where parents are that have moved. */
  readonly parents: readonly Store[];
  readonly skip: readonly SkipPart[];
  readonly options: CommonOptions;
  readonly signal: AbortSignal;
  readonly onProgress: (view: ProgressView) => void;
}

/** The socket, if there is one. Throws `CHKPT_USAGE` for options that do not go with it. */
export function qemuSocketOf(line: ParsedLine, excluded: readonly string[]): string | undefined {
  const socket = line.last('qemu');
  if (socket === undefined) return undefined;
  const other = excluded.find((name) => line.all(name).length > 0);
  if (other !== undefined) throw usageError(`--qemu and --${other} exclude each other`);
  return socket;
}

/** The guest runs on if it ran, whatever happens. */
export async function saveQemu(
  work: QemuWork,
  {
    id,
    copyMemory,
    scrub,
  }: { readonly id: string | undefined; readonly copyMemory: boolean; readonly scrub: ScrubOptions },
): Promise<SaveReport & { id: string }> {
  await using vm = await QemuVm.connect(work.socket, { id });
  checkScrub(scrub, vm.memory.regions);
  const { threads, codec, uuid, createdMs } = work.options;
  const { skip, signal } = work;
  const [parent, ...parents] = work.parents;
  const report = await saveVm(vm, work.store, {
    ...{ threads, codec, uuid, createdMs, skip, signal, copyMemory, parent, parents, ...scrub },
    onProgress: viewOf(work),
  });
  return { ...report, id: vm.id };
}

/** REQUIRES of the caller: the store is what the user named, so the identity of the machine is not compared. */
export async function loadQemu(
  work: QemuWork,
  { isPaused, identity }: { readonly isPaused: boolean; readonly identity: IdentityOptions },
): Promise<LoadReport> {
  await using vm = await QemuVm.connect(work.socket);
  const { skip, signal, parents } = work;
  const { threads } = work.options;
  const report = await loadVm(vm, work.store, {
    ...{ threads, skip, signal, parents, ...identity },
    ignore: ['id'],
    onProgress: viewOf(work),
  });
  if (!isPaused) await vm.resume();
  return report;
}

function viewOf({ onProgress }: QemuWork): (progress: Progress) => void {
  return ({ phase, memoryBytesDone, memoryBytes }) =>
    onProgress({ phase, doneBytes: memoryBytesDone, totalBytes: memoryBytes });
}
