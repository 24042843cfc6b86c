/** The guests of guests/*.S, assembled. */
import { execFileSync } from 'node:child_process';
import { packageRoot } from '../../src/util/package-root.ts';

/** Where they are linked to. */
export const guestAddress = 0x10_0000;

/** Assembles the guests; returns one as the file that QEMU's `-kernel` takes, or the file of its bytes alone. */
export function assembleGuest(name: string, format: 'elf' | 'bin'): string {
  const root = packageRoot();
  execFileSync('bash', [`${root}/scripts/build-guests.sh`]);
  return `${root}/out/guests/${name}.${format}`;
}
