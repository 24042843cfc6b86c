/** What a KVM machine is made of, checked. */
import type { RegionSpec, TrackerKind } from '../../index.ts';
import type { CpuidEntry } from './cpuid.ts';
import { checkImage, type GuestImage } from './guest-image.ts';
import type { KvmDevice } from './kvm-device.ts';

/** A vCPU that cannot go on. */
export interface VcpuEnd {
  readonly core: number;
  /** For people: `shutdown (triple fault)`. */
  readonly reason: string;
}

export interface KvmVmOptions {
  /** Identity of the machine, checked on load. Default `kvm`. */
  readonly id?: string | undefined;
  /** Bytes of one region at address 0; default 16 MiB. Not together with `regions`. */
  readonly memoryBytes?: number | undefined;
  readonly regions?: readonly RegionSpec[] | undefined;
  /** vCPUs, 1 to 64; default 1. */
  readonly cores?: number | undefined;
  /** The program to start with. Without one the machine can only be loaded into. */
  readonly image?: GuestImage | undefined;
  /** Devices that JavaScript serves. */
  readonly devices?: readonly KvmDevice[] | undefined;
  /**
   * Entries of the dirty ring of each vCPU, a power of two from 1,024 to 65,536: what changes is then told by the rings, which costs what
   * was written, not what the memory is large. Default: none, the machine has a dirty log. Throws `CHKPT_UNSUPPORTED` where KVM has none.
   */
  readonly dirtyRing?: number | undefined;
  /** Changes the entries of CPUID that the guest sees, from those that KVM supports. */
  readonly cpuid?: ((supported: CpuidEntry[]) => readonly CpuidEntry[]) | undefined;
  /** What the guest has sent over the serial port at 0x3f8. */
  readonly onSerial?: ((bytes: Uint8Array) => void) | undefined;
  /** A vCPU that cannot go on: the guest has shut down, or KVM cannot run it. The machine still counts as running. */
  readonly onEnd?: ((end: VcpuEnd) => void) | undefined;
}

export interface KvmConfiguration {
  readonly id: string;
  readonly regions: readonly RegionSpec[];
  readonly cores: number;
  readonly devices: readonly KvmDevice[];
  /** 0: none. */
  readonly ringEntries: number;
}

export interface KvmTrackOptions {
  /** Default: `kvm-ring` for a machine with rings, else `kvm-log`. */
  readonly kind?: Exclude<TrackerKind, 'soft-dirty'> | undefined;
  /** See `TrackOptions`. */
  readonly threads?: number | undefined;
}

/** KVM keeps some entries for itself, and has a mapping of bounded size. */
const [ringEntriesMin, ringEntriesMax] = [1024, 65_536];
const coresMax = 64;
const ownContexts = ['pic0', 'pic1', 'ioapic', 'pit', 'clock', 'serial0'];

/** Throws `TypeError` and `RangeError`. */
export function configurationOf(options: KvmVmOptions): KvmConfiguration {
  const { id = 'kvm', cores = 1, devices = [], memoryBytes, regions, dirtyRing } = options;
  if (typeof id !== 'string' || id === '') throw new TypeError('the id must be a string that is not empty');
  if (!Number.isInteger(cores) || cores < 1 || cores > coresMax) {
    throw new RangeError(`cores must be a whole number from 1 to ${coresMax}`);
  }
  if (memoryBytes !== undefined && regions !== undefined) {
    throw new TypeError('give memoryBytes or regions, not both');
  }
  if (dirtyRing !== undefined && !isRing(dirtyRing)) {
    throw new RangeError(`dirtyRing must be a power of two from ${ringEntriesMin} to ${ringEntriesMax}`);
  }
  const names = [...ownContexts, ...devices.map((device) => device.id)];
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new TypeError(`there must be one device ${twice}, not two`);
  if (options.image !== undefined) checkImage(options.image);
  return {
    id,
    cores,
    devices,
    ringEntries: dirtyRing ?? 0,
    regions: regions ?? [{ base: 0n, bytes: memoryBytes ?? 16 << 20 }],
  };
}

function isRing(entries: number): boolean {
  return entries >= ringEntriesMin && entries <= ringEntriesMax && Number.isInteger(Math.log2(entries));
}
