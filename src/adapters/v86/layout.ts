/**
 * Which entry of v86's state belongs to which context. Entries that are devices are named by the emulator itself; those that
 * lie in WebAssembly are named here, by their place (v86, `CPU.prototype.get_state`, state format 6).
 */

/** Entries of devices that live in WebAssembly or are no members of `cpu.devices`. */
export const placedDevices: ReadonlyMap<number, string> = new Map([
  [45, 'virtio_9p'],
  [46, 'apic'],
  [50, 'acpi'],
  [60, 'pic'],
  [62, 'fw_cfg'],
  [63, 'ioapic'],
  [79, 'uart1'],
  [80, 'uart2'],
  [81, 'uart3'],
  [82, 'virtio_console'],
  [83, 'virtio_net'],
  [84, 'virtio_balloon'],
]);

/** Entry 0 is the size of guest memory, which the region table tells. */
export const memorySizeEntry = 0;

/**
 * How v86 keeps time and what it remembers to be faster: the last translated address, the start of the last instruction, the
 * time-stamp counter and its offset. All others are state that every implementation of the architecture has.
 */
const dependentEntries: ReadonlySet<number> = new Set([18, 19, 20, 21, 38, 43, 44, 86, 87, 88]);

export function isDependent(entry: number): boolean {
  return dependentEntries.has(entry);
}
