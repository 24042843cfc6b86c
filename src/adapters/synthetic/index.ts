/**
 * `chkpt/synthetic`: a machine without a guest, for tests, benchmarks and the demo. Threads write stamped pages at
 * a set rate and pattern; devices and processors change with them.
 */
export { digestMachine } from './machine-digest.ts';
export type { SyntheticVmOptions, WritePattern } from './options.ts';
export { type StampCheck, SyntheticVm } from './synthetic-vm.ts';
