/** What a source offers of its machine: the description, where it fits a message. */
import type { VirtualMachine } from '../checkpoint/virtual-machine.ts';
import { CheckpointError } from '../errors/index.ts';
import type { Digest64 } from '../format/digest.ts';
import { migrationControlBytesMax } from '../limits.ts';
import { describeMachine } from './description.ts';

/** Of a control message, for what it has besides. */
const messageBytes = 64;

/** Throws `CHKPT_UNSUPPORTED`. */
export async function offerOf(vm: VirtualMachine, digest: Digest64): Promise<Uint8Array> {
  const description = await describeMachine(vm, digest);
  if (description.length > migrationControlBytesMax - messageBytes) {
    throw new CheckpointError('CHKPT_UNSUPPORTED', 'the device table is too long for an offer');
  }
  return description;
}
