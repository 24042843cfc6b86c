/**
 * `chkpt/v86`: a v86 emulator (npm `v86`, an optional peer dependency, never imported here) as a virtual machine.
 */
export type { V86Cpu, V86Emulator } from './emulator.ts';
export { V86Vm, type V86VmOptions } from './v86-vm.ts';
