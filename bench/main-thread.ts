/** How much a piece of work keeps the main thread, and with it the event loop, from doing anything else. */
import { readFileSync } from 'node:fs';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';

/** Time between two ticks of a 1 ms timer. 1 ms is the best there is. */
export interface LoopDelay {
  readonly p99Ms: number;
  readonly maxMs: number;
}

export interface MainThreadUse {
  readonly wallMs: number;
  /** CPU time of the main thread, share of the wall time. */
  readonly busy: number;
  /** `performance.eventLoopUtilization`: time outside epoll, which counts work of others on the same core too. */
  readonly utilization: number;
}

const resolutionMs = 1;
/** Ticks before the work begins and after it ends: the histogram leaves out its first interval. */
const marginMs = 5;

/** How late a timer is while `work` runs with nothing else on the main thread. */
export async function measureDelay(work: () => Promise<unknown>): Promise<LoopDelay> {
  // A new histogram, not reset(): after a reset the first interval is lost, and with it a block right at the start.
  const delay = monitorEventLoopDelay({ resolution: resolutionMs });
  delay.enable();
  await sleep(marginMs);
  await work();
  await sleep(marginMs);
  delay.disable();
  const nanosecondsPerMs = 1e6;
  return { p99Ms: delay.percentile(99) / nanosecondsPerMs, maxMs: delay.max / nanosecondsPerMs };
}

/** What `work` takes of the main thread. Without the timer of `measureDelay`, whose thousand ticks a second take their share. */
export async function measureUse(work: () => Promise<unknown>): Promise<MainThreadUse> {
  const begin = performance.now();
  const busyBegin = threadCpuMs();
  const loopBegin = performance.eventLoopUtilization();
  await work();
  const wallMs = performance.now() - begin;
  const busyMs = threadCpuMs() - busyBegin;
  const { utilization } = performance.eventLoopUtilization(loopBegin);
  return { wallMs, busy: busyMs / wallMs, utilization };
}

/** Node 23.9 and later. */
type ThreadCpuUsage = () => { readonly user: number; readonly system: number };

/** CPU time of the calling thread, milliseconds. */
export function threadCpuMs(): number {
  const { threadCpuUsage } = process as unknown as { threadCpuUsage?: ThreadCpuUsage };
  if (threadCpuUsage !== undefined) {
    const { user, system } = threadCpuUsage.call(process);
    return (user + system) / 1000;
  }
  try {
    // "nanoseconds on the CPU, nanoseconds waiting for one, slices"
    return Number(readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ')[0]) / 1e6;
  } catch {
    return threadCpuTicksMs();
  }
}

/** Kernels without schedstat: in ticks of 10 ms. */
function threadCpuTicksMs(): number {
  const stat = readFileSync('/proc/thread-self/stat', 'latin1');
  // The command name may have spaces; fields 14 and 15 are counted from behind its bracket.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const tickMs = 10;
  return (Number(fields[11]) + Number(fields[12])) * tickMs;
}
