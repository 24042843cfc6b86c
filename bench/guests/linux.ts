/** The small Linux that bench/corpus/make-linux-guest.sh makes of Debian packages. */
import { execFileSync } from 'node:child_process';
import { packageRoot } from '../../src/util/package-root.ts';
import { unlessRequired } from './required.ts';

export type GuestArchitecture = 'i386' | 'amd64';

/** Where `vmlinuz`, `initrd.cpio` and `root.ext4` of the guest behind the RAM image are: a Debian that compiles and sorts. */
export function corpusFolder(): string {
  return `${packageRoot()}/bench/corpus/data/guest-corpus`;
}

/** Why it cannot be; undefined when it can. Makes it when it is not there. */
export function whyNoCorpusGuest(): string | undefined {
  return whyNot([`${packageRoot()}/bench/corpus/make-ram-image.sh`, '--guest']);
}

/** Where `vmlinuz` and `initrd.gz` are. */
export function linuxFolder(architecture: GuestArchitecture): string {
  return `${packageRoot()}/bench/corpus/data/guest-${architecture}`;
}

/** Why there can be no Linux; undefined when there can. Makes it when it is not there. */
export function whyNoLinux(architecture: GuestArchitecture): string | undefined {
  return whyNot([`${packageRoot()}/bench/corpus/make-linux-guest.sh`, architecture]);
}

function whyNot([script = '', ...parameters]: readonly string[]): string | undefined {
  try {
    execFileSync('bash', [script, ...parameters], { stdio: 'pipe', timeout: 600_000 });
    return undefined;
  } catch (error) {
    return unlessRequired(`no Linux guest: ${String((error as { stderr?: Buffer }).stderr ?? error).trim()}`);
  }
}
