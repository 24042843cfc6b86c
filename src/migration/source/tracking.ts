/**
 * Who says what the guest has written, while it runs. Trackers that cannot be asked then (digests of what memory was when it was looked at, not
 * when it was sent; soft-dirty bits, which a running process sets while they are cleared) make way for digests of what was sent.
 */
import { ChangeLog } from '../../checkpoint/change-log.ts';
import type { TrackerReport } from '../../checkpoint/increment.ts';
import type { VirtualMachine } from '../../checkpoint/virtual-machine.ts';
import { type DirtyTracker, type GuestMemory, trackMemory } from '../../memory/index.ts';

export interface TrackerChoice {
  /** Undefined: pages are compared with what was sent. */
  readonly tracker: DirtyTracker | undefined;
  readonly report: TrackerReport;
  /** Ends a tracker that was opened here; that of the machine stays. */
  close(): Promise<void>;
}

/** The machine's tracker, or one that is opened. Throws as `trackMemory`. */
export function chooseTracker(vm: VirtualMachine, memory: GuestMemory): TrackerChoice {
  const { dirtyTracker } = vm;
  const own = dirtyTracker === undefined && !memory.isAttached ? trackMemory(memory) : undefined;
  const tracker = dirtyTracker ?? own;
  const close = async (): Promise<void> => await own?.close();
  if (tracker !== undefined && tracker.kind !== 'digest' && tracker.kind !== 'soft-dirty') {
    return { tracker, report: { kind: tracker.kind, reason: tracker.reason }, close };
  }
  const why = {
    digest: tracker?.reason,
    'soft-dirty': 'soft-dirty bits cannot be read while their process runs',
  };
  const reason = `compares pages with what was sent: ${
    tracker === undefined
      ? 'memory may move, and the machine has no tracker'
      : why[tracker.kind as keyof typeof why]
  }`;
  return { tracker: undefined, report: { kind: 'digest', reason }, close };
}

/**
 * For a migration: nothing is known of the changes since a checkpoint any more, neither now nor after `close`. `shared`: the machine's tracker,
 * asked by somebody else too.
 */
export function openTracking(
  vm: VirtualMachine,
  memory: GuestMemory,
  shared: DirtyTracker | undefined,
): TrackerChoice {
  const { dirtyTracker } = vm;
  const forget = (): void => {
    if (dirtyTracker !== undefined) ChangeLog.of(dirtyTracker).reset();
  };
  forget();
  const choice = chooseTracker(vm, memory);
  const close = async (): Promise<void> => {
    await choice.close();
    forget();
  };
  const tracker = choice.tracker === undefined ? undefined : (shared ?? choice.tracker);
  return { ...choice, tracker, close };
}
