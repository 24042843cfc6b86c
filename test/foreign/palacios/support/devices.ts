/** Devices of every kind, with content, for checkpoints of an original. */
import { type DeviceKind, deviceKinds, schemaOfKind } from '../../../../src/foreign/palacios/schema.ts';
import { type Blob, type Group, pattern, u32 } from './original.ts';

/** The state of a device of this kind. Drives and APICs say what they are. */
export function blobsOf(kind: DeviceKind, seed: number): Blob[] {
  return schemaOfKind(kind, 2).map(([tag, bytes], index): Blob => {
    if (tag === 'NUM_APICS') return [tag, u32(2)];
    if (tag === 'DRIVE_TYPE') return [tag, u32(['IDE no drive', 'IDE disk', 'IDE CD'].indexOf(kind))];
    return [tag, pattern(seed * 100 + index, bytes)];
  });
}

const isExtended = (kind: DeviceKind): boolean => kind.startsWith('IDE') || kind.startsWith('PCI');

/** In the table: one of each kind, as an original names them. */
export const plainDevices: readonly (readonly [id: string, blobs: readonly Blob[]])[] = deviceKinds
  .filter((kind) => !isExtended(kind))
  .map((kind, index) => [kind === 'no state' ? 'hpet' : `dev ${index}`, blobsOf(kind, index)]);

/** Not in the table: a PCI bus with two functions, and an IDE controller with a disk and a CD. */
export const extendedDevices: readonly Group[] = [
  ['ide', []],
  ['ide-0', blobsOf('IDE channel', 50)],
  ['ide-0-0', blobsOf('IDE disk', 51)],
  ['ide-0-1', blobsOf('IDE CD', 52)],
  ['ide-1', blobsOf('IDE channel', 53)],
  ['ide-1-0', blobsOf('IDE no drive', 54)],
  ['ide-1-1', blobsOf('IDE no drive', 55)],
  ['pci', blobsOf('PCI', 60)],
  ['pci-0', []],
  ['pci-0.0-0', blobsOf('PCI function', 61)],
  ['pci-0.1-1', blobsOf('PCI function', 62)],
];
