/** What the suites of virtual machines share. */
import type { SaveVmOptions, Store, VirtualMachine } from '../../src/index.ts';

/** A machine of an adapter, with what a test wants to know of it. */
export interface TestMachine {
  readonly vm: VirtualMachine;
  /** Digest of memory and of all state; equal machines have equal ones, whatever their id. */
  digest(): Promise<string>;
  /** Resolves when the guest has visibly done something since the call. REQUIRES: it runs. */
  waitForWork(): Promise<void>;
  /**
   * True when something in memory tells the time of its last change and a device or core tells the same time.
   * A save that did not wait for the guest gives a machine where it is false. Absent where a guest has nothing of the kind.
   */
  isOfOneMoment?(): Promise<boolean>;
  /** Gives the machine its dirty tracker. Absent where the adapter has none. */
  trackChanges?(): void;
  close(): Promise<void>;
}

/** A place for one checkpoint, fresh for each call. */
export type MakeStore = () => Store;

/** What the tests of a suite share. */
export interface Bench {
  /** Makes a machine that is closed after the test. */
  machine(create?: () => Promise<TestMachine>): Promise<TestMachine>;
  /** One that is only loaded into; default: as `machine` makes them. */
  target?(): Promise<TestMachine>;
  store: MakeStore;
}

/** What is needed for two saves to give equal bytes. */
export const fixed: SaveVmOptions = { uuid: '11111111-2222-4333-8444-555555555555', createdMs: 1 };

/** A machine that ran for a while and is paused. */
export async function usedMachine(bench: Bench): Promise<TestMachine> {
  const machine = await bench.machine();
  await machine.vm.resume();
  await machine.waitForWork();
  await machine.vm.pause();
  return machine;
}
