/** Devices that JavaScript serves: ranges of ports and addresses, and handlers that a vCPU waits for. */
import type { StateContext } from '../../index.ts';

export interface KvmAccess {
  readonly space: 'ports' | 'mmio';
  /** Bytes from the first one of the range. */
  readonly offset: number;
  /** 1, 2, 4 or 8; also 3, 5, 6, 7 where a guest crosses a page. */
  readonly byteCount: number;
  /** The vCPU that asks. */
  readonly core: number;
}

export interface KvmDevice {
  /** Unique in the machine; name of its context. */
  readonly id: string;
  /** What kind of device it is, checked on load. */
  readonly deviceClass: string;
  readonly ports?: { readonly first: number; readonly count: number } | undefined;
  readonly mmio?: { readonly base: bigint | number; readonly bytes: number } | undefined;
  /** What the guest reads; a number or bigint, of which the access takes the lowest bytes. Synchronous: the vCPU waits. */
  read(access: KvmAccess): number | bigint;
  write(access: KvmAccess, value: bigint): void;
  /** State that goes into checkpoints. */
  readonly contexts?: readonly StateContext[] | undefined;
}

/** A range as the native side takes it, and whose it is. */
export interface OwnedRange {
  readonly device: KvmDevice;
  readonly space: KvmAccess['space'];
  readonly base: bigint;
  readonly bytes: bigint;
}

const serialPorts = { base: 0x3f8n, bytes: 8n };

/** Throws `RangeError` when ranges cannot be or meet each other, the serial port or memory. */
export function rangesOf(
  devices: readonly KvmDevice[],
  memory: readonly { readonly base: bigint; readonly bytes: bigint }[],
): OwnedRange[] {
  const ranges = devices.flatMap((device): OwnedRange[] => {
    const { ports, mmio } = device;
    return [
      ...(ports === undefined
        ? []
        : [{ device, space: 'ports' as const, base: BigInt(ports.first), bytes: BigInt(ports.count) }]),
      ...(mmio === undefined
        ? []
        : [{ device, space: 'mmio' as const, base: BigInt(mmio.base), bytes: BigInt(mmio.bytes) }]),
    ];
  });
  for (const [index, range] of ranges.entries()) {
    const { device, space, base, bytes } = range;
    const end = space === 'ports' ? 0x1_0000n : 1n << 52n;
    if (base < 0n || bytes <= 0n || base + bytes > end) {
      throw new RangeError(`device ${device.id} has ${space} that cannot be`);
    }
    const others = [
      ...ranges.slice(0, index).filter((other) => other.space === space),
      ...(space === 'ports' ? [serialPorts] : memory),
    ];
    if (others.some((other) => base < other.base + other.bytes && other.base < base + bytes)) {
      throw new RangeError(`device ${device.id} has ${space} that somebody else has`);
    }
  }
  return ranges;
}
