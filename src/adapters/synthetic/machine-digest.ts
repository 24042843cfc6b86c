/** One digest over everything that a checkpoint of a machine holds: the oracle of save and load. */
import { createHash } from 'node:crypto';
import type { StatePart, VirtualMachine } from '../../index.ts';

/**
 * SHA-256, hexadecimal, over the digest of memory and every tag of every device and core. Equal machines give
 * equal digests, whatever their id. REQUIRES: the machine is paused.
 */
export async function digestMachine(vm: VirtualMachine): Promise<string> {
  const hash = createHash('sha256');
  const add = (data: Uint8Array): void => {
    hash.update(BigUint64Array.of(BigInt(data.length))).update(data);
  };
  const memory = await vm.memory?.digest();
  add(memory === undefined ? new Uint8Array(0) : new Uint8Array(BigUint64Array.of(memory).buffer));
  const addParts = async (name: string, parts: readonly StatePart<unknown>[]): Promise<void> => {
    add(Buffer.from(name));
    for (const { state, get } of parts) {
      for (const { tag, type, data } of state.encode(await get())) {
        add(Buffer.from(tag));
        add(Buffer.from(type));
        add(data);
      }
    }
  };
  for (const { contexts } of vm.devices) {
    for (const { name, parts } of contexts) await addParts(name, parts);
  }
  // Not the plan that save and load follow: what that forgets must not be forgotten here.
  for (const [index, { independent, dependent = [] }] of vm.cores.entries()) {
    await addParts(`core${index}`, independent);
    await addParts(`core${index}.arch`, dependent);
  }
  return hash.digest('hex');
}
