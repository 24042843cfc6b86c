/** `chkpt/qemu`: QEMU guests. */
export { type QemuStartOptions, type QemuTrackOptions, QemuVm, type QemuVmOptions } from './qemu-vm.ts';
export { QmpClient, type QmpEvent, type QmpOptions } from './qmp-client.ts';
