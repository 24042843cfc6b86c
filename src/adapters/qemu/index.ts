/** `chkpt/qemu`: QEMU guests. */
export { type QemuStartOptions, QemuVm, type QemuVmOptions } from './qemu-vm.ts';
export { QmpClient, type QmpEvent, type QmpOptions } from './qmp-client.ts';
