/** Measures what a step costs the process around it: how late the event loop was, and memory at its peak. */
import { monitorEventLoopDelay } from 'node:perf_hooks';

const sampleMs = 10;
const resolutionMs = 1;

/**
 * Runs `work` and measures. `work` gets a function that takes a sample of memory, for moments that matter.
 *
 * `loopDelayMs` is the 99th percentile of how much later than due a timer of 1 ms fired; `peakBytes` is by how much
 * the memory of the process grew beyond what it had before.
 */
export async function measure(work) {
  const before = process.memoryUsage.rss();
  let peak = before;
  const sample = () => {
    peak = Math.max(peak, process.memoryUsage.rss());
  };
  const delay = monitorEventLoopDelay({ resolution: resolutionMs });
  const timer = setInterval(sample, sampleMs);
  delay.enable();
  const begin = performance.now();
  try {
    const result = await work(sample);
    const elapsedMs = performance.now() - begin;
    sample();
    const loopDelayMs = Math.max(0, delay.percentile(99) / 1e6 - resolutionMs);
    return { result, elapsedMs, loopDelayMs, peakBytes: peak - before };
  } finally {
    delay.disable();
    clearInterval(timer);
  }
}
