/** The small Linux that bench/corpus/make-linux-guest.sh makes of Debian packages. */
import { execFileSync } from 'node:child_process';
import { packageRoot } from '../package-link.ts';

export type GuestArchitecture = 'i386' | 'amd64';

/** Where `vmlinuz` and `initrd.gz` are. */
export function linuxFolder(architecture: GuestArchitecture): string {
  return `${packageRoot()}/bench/corpus/data/guest-${architecture}`;
}

/** Why there can be no Linux; undefined when there can. Makes it when it is not there. */
export function whyNoLinux(architecture: GuestArchitecture): string | undefined {
  const script = `${packageRoot()}/bench/corpus/make-linux-guest.sh`;
  try {
    execFileSync(script, [architecture], { stdio: 'pipe', timeout: 300_000 });
    return undefined;
  } catch (error) {
    return `no Linux guest: ${String((error as { stderr?: Buffer }).stderr ?? error).trim()}`;
  }
}
