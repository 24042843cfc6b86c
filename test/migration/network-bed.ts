/**
 * Two hosts as network namespaces, with a link between them whose rate is limited: TCP, TLS and IPv6 as they are between machines, and a
 * cable that can be cut. Needs root and iproute2. A bed goes with its file; what a killed process has left, the next bed removes.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { HostProcess } from './host-process.ts';

export type Side = 'source' | 'destination';

const prefix = 'chkpt-bed';
const device = 'link0';
const sides: readonly Side[] = ['source', 'destination'];
const ipv4 = { source: '10.97.0.1', destination: '10.97.0.2' } as const;
const ipv6 = { source: 'fd97::1', destination: 'fd97::2' } as const;

export const hasIpv6 = existsSync('/proc/net/if_inet6');

let bedCount = 0;

export class NetworkBed implements Disposable {
  readonly #name: string;

  private constructor(name: string) {
    this.#name = name;
  }

  /** Both directions have that rate, in Mbit/s. */
  static create(megabits: number): NetworkBed {
    removeLeftBeds();
    const bed = new NetworkBed(`${prefix}-${process.pid}-${bedCount++}`);
    try {
      bed.#build(megabits);
      return bed;
    } catch (error) {
      bed[Symbol.dispose]();
      throw error;
    }
  }

  /** Address of the destination; where it may listen. */
  get address(): string {
    return ipv4.destination;
  }

  get address6(): string {
    return ipv6.destination;
  }

  start(side: Side, program: string, words: readonly string[]): HostProcess {
    return new HostProcess('ip', ['netns', 'exec', this.#space(side), program, ...words]);
  }

  setRate(megabits: number): void {
    for (const side of sides) this.#shape(side, 'change', megabits);
  }

  /** The cable is pulled, and plugged in again. */
  set isPlugged(isPlugged: boolean) {
    ip(['-n', this.#space('source')], `link set ${device} ${isPlugged ? 'up' : 'down'}`);
  }

  /** The link is up, and nothing comes out of it. */
  set isSwallowing(isSwallowing: boolean) {
    for (const [side, far] of [
      ['source', ipv4.destination],
      ['destination', ipv4.source],
    ] as const) {
      ip(['-n', this.#space(side)], `route ${isSwallowing ? 'add' : 'del'} blackhole ${far}/32`);
    }
  }

  /** Resets all connections to the destination. Returns how many there were; 0 also where the kernel cannot do that. */
  reset(): number {
    const words = ['netns', 'exec', this.#space('source'), 'ss', '-K', '-H', '-tn', 'dst', ipv4.destination];
    const { stdout } = spawnSync('ip', words, { encoding: 'utf8' });
    return stdout.split('\n').filter(Boolean).length;
  }

  [Symbol.dispose](): void {
    for (const side of sides) spawnSync('ip', ['netns', 'del', this.#space(side)]);
  }

  #space(side: Side): string {
    return `${this.#name}-${side}`;
  }

  #build(megabits: number): void {
    const [near, far] = [this.#space('source'), this.#space('destination')];
    ip(
      [],
      `netns add ${near}`,
      `netns add ${far}`,
      `link add ${device} netns ${near} type veth peer name ${device} netns ${far}`,
    );
    for (const side of sides) {
      ip(
        ['-n', this.#space(side)],
        `addr add ${ipv4[side]}/30 dev ${device}`,
        ...(hasIpv6 ? [`addr add ${ipv6[side]}/64 dev ${device} nodad`] : []),
        'link set lo up',
        `link set ${device} up`,
      );
      this.#shape(side, 'add', megabits);
    }
  }

  #shape(side: Side, verb: 'add' | 'change', megabits: number): void {
    const words = `netns exec ${this.#space(side)} tc qdisc ${verb} dev ${device} root`.split(' ');
    run([...words, ...`tbf rate ${megabits}mbit burst 64kb latency 50ms`.split(' ')]);
  }
}

/** Several commands of `ip`, in one process. */
function ip(options: readonly string[], ...lines: readonly string[]): void {
  run([...options, '-batch', '-'], lines.join('\n'));
}

function run(words: readonly string[], input = ''): void {
  const { status, stderr, error } = spawnSync('ip', words, { encoding: 'utf8', input });
  if (status === 0) return;
  throw new BedError(`ip ${words.join(' ')}: ${error?.message ?? stderr.trim().replaceAll('\n', '; ')}`);
}

class BedError extends Error {}

function probe(): string | undefined {
  try {
    NetworkBed.create(100)[Symbol.dispose]();
    return undefined;
  } catch (error) {
    if (error instanceof BedError) return error.message;
    throw error;
  }
}

/** Beds of processes that are gone. */
function removeLeftBeds(): void {
  const folder = '/run/netns';
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    const owner = new RegExp(`^${prefix}-(\\d+)-`).exec(name)?.[1];
    if (owner !== undefined && !existsSync(`/proc/${owner}`)) spawnSync('ip', ['netns', 'del', name]);
  }
}

/** Why there are no beds on this machine; undefined: there are. */
export const bedsMissing = probe();
