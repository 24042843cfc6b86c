/** What the tests of KVM machines share. */
import type { VcpuEnd } from '../../../src/adapters/kvm/index.ts';
import type { VirtualMachine } from '../../../src/index.ts';

/** What the guest that checks itself says when something is wrong, also when two of its cores say it at once ("BBAADD"). */
const wrong = /[A-Z].*/s;

/** Listens to a guest. */
export class KvmStart {
  /** What it has sent. */
  text = '';
  readonly ends: VcpuEnd[] = [];

  readonly onSerial = (bytes: Uint8Array): void => {
    this.text += Buffer.from(bytes).toString('latin1');
  };

  readonly onEnd = (end: VcpuEnd): void => {
    this.ends.push(end);
  };

  /** Throws when the guest has found something wrong, or is gone. */
  check(): void {
    const bad = wrong.exec(this.text);
    if (bad !== null) throw new Error(`the guest says BAD: ${bad[0]}`);
    const [end] = this.ends;
    if (end !== undefined) throw new Error(`core ${end.core}: ${end.reason}`);
  }
}

/** Values by context and tag. */
export type Snapshot = ReadonlyMap<string, string>;

/** All state of a paused machine, as it would be saved. */
export async function snapshotOf(vm: VirtualMachine): Promise<Snapshot> {
  const contexts = vm.devices.flatMap((device) => device.contexts);
  for (const [index, { independent, dependent = [] }] of vm.cores.entries()) {
    contexts.push({ name: `core${index}`, parts: independent });
    contexts.push({ name: `core${index}.arch`, parts: dependent });
  }
  const values = new Map<string, string>();
  for (const { name, parts } of contexts) {
    for (const { state, get } of parts) {
      for (const { tag, data } of state.encode((await get()) as never)) {
        const little = Buffer.from(data);
        values.set(
          `${name}/${tag}`,
          data.length === 8 ? String(little.readBigUInt64LE()) : little.toString('hex'),
        );
      }
    }
  }
  return values;
}
