/** `chkpt/kvm`: virtual machines under `/dev/kvm`. */
export type { CpuidEntry } from './cpuid.ts';
export type { GuestImage } from './guest-image.ts';
export type { KvmAccess, KvmDevice } from './kvm-device.ts';
export { KvmVm } from './kvm-vm.ts';
export type { KvmTrackOptions, KvmVmOptions, VcpuEnd } from './options.ts';
