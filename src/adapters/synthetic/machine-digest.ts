/** One digest over everything that a checkpoint of a machine holds: the oracle of save and load. */
import { createHash } from 'node:crypto';
import { planOf } from '../../checkpoint/vm-plan.ts';
import type { StatePart, VirtualMachine } from '../../index.ts';

/**
 * SHA-256, hexadecimal, over the digest of memory and every tag of every device and core. Equal machines give equal
 * digests, whatever their id. REQUIRES: the machine is paused.
 */
export async function digestMachine(vm: VirtualMachine): Promise<string> {
  const hash = createHash('sha256');
  const add = (data: Uint8Array): void => {
    hash.update(BigUint64Array.of(BigInt(data.length))).update(data);
  };
  const memory = await vm.memory?.digest();
  add(memory === undefined ? new Uint8Array(0) : new Uint8Array(BigUint64Array.of(memory).buffer));
  for (const { name, parts } of planOf(vm, []).states) {
    add(Buffer.from(name));
    for (const part of parts as readonly StatePart<unknown>[]) {
      for (const { tag, type, data } of part.state.encode(await part.get())) {
        add(Buffer.from(tag));
        add(Buffer.from(type));
        add(data);
      }
    }
  }
  return hash.digest('hex');
}
