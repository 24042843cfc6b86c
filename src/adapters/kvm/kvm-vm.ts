/**
 * A virtual machine under `/dev/kvm`: real vCPUs, the kernel's interrupt controllers, timer and clock, a 16550 serial port, and
 * devices that JavaScript serves.
 *
 * State is taken once after each pause and stays as it was taken: the guest's clock stands still with the guest. Owns memory,
 * threads and descriptors; `close()` gives them back. Calls may overlap: they run one after the other.
 */
import {
  CheckpointError,
  type Core,
  type Device,
  GuestMemory,
  MemoryTracker,
  type StatePart,
  trackMemory,
  type VirtualMachine,
} from '../../index.ts';
import {
  callNative,
  type NativeDeviceAccess,
  type NativeKvmMachine,
  type NativeKvmSupport,
  nativeAddon,
} from '../../native/index.ts';
import { type MachineTracker, TrackerPlace } from '../machine-tracker.ts';
import { RunGate } from '../run-gate.ts';
import { cpuidOfCore, decodeCpuid, describeCpu, encodeCpuid } from './cpuid.ts';
import { startRegisters, writeImage } from './guest-image.ts';
import { type OwnedRange, rangesOf } from './kvm-device.ts';
import {
  configurationOf,
  type KvmConfiguration,
  type KvmTrackOptions,
  type KvmVmOptions,
} from './options.ts';
import { SerialLine } from './serial-line.ts';
import { checkKept, coreSlots, machineSlots, type StateSlot, slotPart } from './state-slots.ts';

type SlotBytes = Map<StateSlot, Uint8Array>;

const deviceClasses: Readonly<Record<string, string>> = {
  pic0: 'kvm.i8259',
  pic1: 'kvm.i8259',
  ioapic: 'kvm.ioapic',
  pit: 'kvm.i8254',
  clock: 'kvm.clock',
  serial0: '16550',
};

const reasons = {
  'kvm-log': 'KVM keeps a dirty log of what the vCPUs write',
  'kvm-ring': 'KVM keeps a dirty ring of what each vCPU writes',
} as const;

/** Where interrupt lines and received bytes arrive. */
const lineContexts: ReadonlySet<string> = new Set(['pic0', 'pic1', 'ioapic', 'serial0']);

export class KvmVm implements VirtualMachine, AsyncDisposable {
  readonly id: string;
  readonly cpu: { readonly vendor: string; readonly model: string };
  readonly memory: GuestMemory;
  readonly cores: readonly Core[];
  readonly devices: readonly Device[];
  readonly #options: KvmVmOptions;
  readonly #machine: NativeKvmMachine;
  readonly #ranges: readonly OwnedRange[];
  readonly #serial: SerialLine;
  readonly #slots: readonly StateSlot[];
  readonly #clock: StateSlot | undefined;
  readonly #ringEntries: number;
  readonly #tracker = new TrackerPlace();
  readonly #gate = new RunGate(this);
  #running = false;
  /** State since the guest was last stopped or loaded. */
  #state: SlotBytes | undefined;
  /** State that a load has brought. */
  readonly #loaded: SlotBytes = new Map();

  private constructor(
    options: KvmVmOptions,
    { id, cores, devices, ringEntries }: KvmConfiguration,
    memory: GuestMemory,
    support: NativeKvmSupport,
  ) {
    this.id = id;
    this.#options = options;
    this.#ringEntries = ringEntries;
    const supported = decodeCpuid(support.cpuid);
    const entries = options.cpuid?.(supported) ?? supported;
    this.cpu = describeCpu(entries);
    this.memory = memory;
    this.#ranges = rangesOf(devices, this.memory.regions);
    const { KvmMachine } = nativeAddon();
    this.#machine = callNative(
      () =>
        new KvmMachine(this.memory.native, {
          cpuid: Array.from({ length: cores }, (_, core) => encodeCpuid(cpuidOfCore(entries, core))),
          ranges: this.#ranges.map(({ space, base, bytes }) => [space === 'mmio', base, bytes]),
          ringEntries,
          onNews: () => this.#onNews(),
        }),
    );
    this.#serial = new SerialLine(this.#machine, (bytes) => options.onSerial?.(bytes));
    const perCore = Array.from({ length: cores }, (_, core) => coreSlots(this.#machine, support, core));
    const ofMachine = machineSlots(this.#machine);
    this.#clock = ofMachine.find(({ context }) => context === 'clock');
    this.#slots = [...perCore.flat(), ...ofMachine];
    this.cores = perCore.map((slots, core) => {
      const partsOf = (context: string): StatePart<never>[] =>
        slots.filter((slot) => slot.context === context).map((slot) => this.#part(slot));
      return { independent: partsOf(`core${core}`), dependent: partsOf(`core${core}.arch`) };
    });
    const own = ofMachine.map((slot): Device => {
      const { context: name } = slot;
      return {
        id: name,
        deviceClass: deviceClasses[name] ?? name,
        contexts: [{ name, parts: [this.#part(slot)] }],
      };
    });
    const others = devices.map(({ id, deviceClass, contexts = [] }) => ({ id, deviceClass, contexts }));
    this.devices = [...own, ...others];
  }

  /**
   * Makes a machine, paused at the first instruction of its image.
   *
   * Rejects with `CHKPT_UNSUPPORTED` where there is no usable `/dev/kvm`, and `TypeError`, `RangeError`, `CHKPT_NO_MEMORY`,
   * `CHKPT_NO_NATIVE`.
   */
  static async create(options: KvmVmOptions = {}): Promise<KvmVm> {
    const configuration = configurationOf(options);
    const support = callNative(() => nativeAddon().kvmSupport());
    const memory = GuestMemory.allocate(configuration.regions);
    let vm: KvmVm | undefined;
    try {
      vm = new KvmVm(options, configuration, memory, support);
      vm.#start();
      return vm;
    } catch (error) {
      await (vm ?? memory).close();
      throw error;
    }
  }

  get running(): boolean {
    return this.#running;
  }

  /** Why the machine must not run; `undefined` when it may. */
  get failure(): Error | undefined {
    return this.#gate.failure;
  }

  /** Of `trackChanges`. */
  get dirtyTracker(): MachineTracker | undefined {
    return this.#tracker.current;
  }

  /**
   * Tells increments what changed, from the next save or load on; also `dirtyTracker`. Closed with the machine. Handlers of devices write
   * memory through `memory.write`: what they write past it is not seen. Throws `TypeError` for a second one, `CHKPT_CLOSED`,
   * `CHKPT_UNSUPPORTED`, and what `trackMemory` does.
   */
  trackChanges(options: KvmTrackOptions = {}): MachineTracker {
    this.#gate.checkOpen();
    const { memory } = this;
    const own = this.#ringEntries > 0 ? 'kvm-ring' : 'kvm-log';
    const { kind = own, threads } = options;
    const open = (): MemoryTracker => {
      if (kind !== 'kvm-log' && kind !== 'kvm-ring') {
        return trackMemory(memory, { kind, ...(threads === undefined ? {} : { threads }) });
      }
      const native = callNative(() => this.#machine.openTracker(kind === 'kvm-ring'));
      return new MemoryTracker(memory, native, kind, reasons[kind]);
    };
    return this.#tracker.open(() => ({ memory, open, isCurrent: () => true }));
  }

  /** See `VirtualMachine`. Rests of some milliseconds for every vCPU at once. Throws `RangeError`, `CHKPT_CLOSED`. */
  throttle(share: number): void {
    if (!(share >= 0 && share < 1)) throw new RangeError('the share must be a number from 0 to below 1');
    this.#gate.checkOpen();
    this.#machine.throttle(share);
  }

  /** Stops every vCPU. An access that a device handler serves is completed first. */
  pause(): Promise<void> {
    return this.#gate.pause(async () => {
      await this.#machine.pause();
      this.#onNews();
      this.#running = false;
      this.#state = this.#capture();
    });
  }

  resume(): Promise<void> {
    return this.#gate.resume(() => {
      // The guest's clock has stood still with the guest.
      const clock = this.#clock && this.#state?.get(this.#clock);
      if (clock !== undefined) callNative(() => this.#clock?.write(clock));
      this.#state = undefined;
      this.#running = true;
      this.#machine.resume();
    });
  }

  beginLoad(): void {
    this.#gate.beginLoad();
    this.#loaded.clear();
  }

  /** Gives KVM what was loaded, and checks that it kept it. */
  endLoad(failure?: Error): void {
    try {
      if (failure === undefined) {
        const given = this.#slots.flatMap((slot): [StateSlot, Uint8Array][] => {
          const bytes = this.#loaded.get(slot);
          return bytes === undefined ? [] : [[slot, bytes]];
        });
        const before = this.#stateNow();
        callNative(() => {
          for (const [slot, bytes] of given) slot.write(bytes);
          for (const [slot, bytes] of given) checkKept(slot, bytes);
        });
        this.#state = new Map([...before, ...given]);
      }
    } finally {
      this.#loaded.clear();
    }
    this.#gate.endLoad(failure);
  }

  /** Bytes for the guest, which arrive as its serial port has room. Throws `RangeError` when more than 1 MiB waits, `CHKPT_CLOSED`. */
  writeSerial(bytes: Uint8Array): void {
    this.#checkOpen();
    this.#serial.write(bytes);
    this.#lookAgain();
  }

  /** An interrupt line of a device, 0 to 23. Throws `CHKPT_CLOSED`. */
  setIrqLine(irq: number, high: boolean): void {
    this.#checkOpen();
    callNative(() => this.#machine.setIrqLine(irq, high));
    this.#lookAgain();
  }

  /** Ends the guest and gives threads, descriptors and memory back. Harmless when called twice. */
  close(): Promise<void> {
    return this.#gate.close(async () => {
      await this.#tracker.close();
      await this.#machine.stop();
      this.#running = false;
      await this.memory.close();
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #checkOpen(): void {
    if (this.#gate.closed) throw new CheckpointError('CHKPT_CLOSED', `machine ${this.id} is closed`);
  }

  #start(): void {
    const { image } = this.#options;
    if (image !== undefined) {
      writeImage(this.memory, image);
      const state = this.#capture();
      for (let core = 0; core < (image.cores === 'all' ? this.cores.length : 1); core += 1) {
        const [mpState, regs, sregs] = this.#slots.filter(({ context }) => context === `core${core}`);
        if (mpState === undefined || regs === undefined || sregs === undefined) continue;
        const bytesOf = (slot: StateSlot): Uint8Array => state.get(slot) ?? slot.read();
        const first = startRegisters(image, core, bytesOf(regs), bytesOf(sregs));
        callNative(() => {
          mpState.write(mpState.layout.encode({ mp_state: first.mpState }));
          regs.write(first.regs);
          sregs.write(first.sregs);
        });
      }
    }
    this.#state = this.#capture();
  }

  #part(slot: StateSlot): StatePart<never> {
    return slotPart(
      slot,
      () => this.#stateNow().get(slot) ?? slot.read(),
      (bytes) => void this.#loaded.set(slot, bytes),
    );
  }

  #stateNow(): SlotBytes {
    this.#gate.checkPaused();
    this.#state ??= this.#capture();
    return this.#state;
  }

  /** What a line of the outside has changed in a machine that stands still. */
  #lookAgain(): void {
    if (this.#state === undefined) return;
    for (const slot of this.#slots) {
      if (lineContexts.has(slot.context)) this.#state.set(slot, slot.read());
    }
  }

  #capture(): SlotBytes {
    return callNative(() => new Map(this.#slots.map((slot) => [slot, slot.read()])));
  }

  /** Called by the native side when a vCPU has something; must not throw. */
  #onNews(): void {
    try {
      this.#serial.pump();
      for (let end = this.#machine.takeEnd(); end !== undefined; end = this.#machine.takeEnd()) {
        this.#options.onEnd?.(end);
      }
    } catch (error) {
      this.#fail(error);
    }
    for (let access = this.#machine.takeAccess(); access !== undefined; access = this.#machine.takeAccess()) {
      this.#machine.answer(access.core, this.#serve(access));
    }
  }

  #serve({ core, range, offset, bytes, write, value }: NativeDeviceAccess): bigint {
    const owned = this.#ranges[range];
    if (owned === undefined) return 0n;
    const { device, space } = owned;
    const access = { space, offset, byteCount: bytes, core };
    try {
      if (write) device.write(access, value);
      else return BigInt.asUintN(64, BigInt(device.read(access)));
    } catch (error) {
      this.#fail(error);
    }
    return BigInt.asUintN(64, -1n);
  }

  /** A handler of the owner has thrown: the guest's device is in no known state, so the guest must not go on. */
  #fail(error: unknown): void {
    this.#gate.endLoad(error instanceof Error ? error : new Error(String(error)));
    if (this.#running) this.pause().catch(() => undefined);
  }
}
