import type { NativeDirtyTracker } from './addon.ts';

/** What `/dev/kvm` offers. */
export interface NativeKvmSupport {
  /** Entries of `kvm_cpuid_entry2`. */
  readonly cpuid: Uint8Array;
  /** 0: no such state. */
  readonly xsaveBytes: number;
  readonly xcrs: boolean;
  readonly debugRegisters: boolean;
}

/** An access that a vCPU waits for. */
export interface NativeDeviceAccess {
  readonly core: number;
  readonly range: number;
  readonly offset: number;
  readonly bytes: number;
  readonly write: boolean;
  readonly value: bigint;
}

/** State is given and taken as bytes of the kernel's structs, while paused only. */
export interface NativeKvmMachine {
  resume(): void;
  pause(): Promise<void>;
  stop(): Promise<void>;
  msrs(): Uint32Array;
  getVcpu(core: number, part: number): Uint8Array;
  setVcpu(core: number, part: number, bytes: Uint8Array): void;
  getMsrs(core: number): Uint8Array;
  setMsrs(core: number, values: Uint8Array): void;
  getVm(part: number): Uint8Array;
  setVm(part: number, bytes: Uint8Array): void;
  getSerial(): Uint8Array;
  setSerial(bytes: Uint8Array): void;
  setIrqLine(irq: number, high: boolean): void;
  takeAccess(): NativeDeviceAccess | undefined;
  answer(core: number, value: bigint): void;
  takeSerialOutput(): Uint8Array;
  feedSerial(bytes: Uint8Array): number;
  /** The guest rests for that share of the time, 0 to below 1. */
  throttle(share: number): void;
  /** Of the dirty log, or of the rings. One at a time. */
  openTracker(ofRings: boolean): NativeDirtyTracker;
  takeEnd(): { readonly core: number; readonly reason: string } | undefined;
}
