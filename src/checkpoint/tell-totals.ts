import type { MemoryFrameSource, MemoryTotals } from '../context/memory-frames.ts';

/** The same source; its totals are told when the context layer takes them. */
export function tellTotals(
  source: MemoryFrameSource,
  tell: (totals: MemoryTotals) => void,
): MemoryFrameSource {
  return {
    regions: source.regions,
    handOver: source.handOver,
    open(position, signal, output) {
      const stream = source.open(position, signal, output);
      return {
        next: () => stream.next(),
        totals: () => {
          const totals = stream.totals();
          tell(totals);
          return totals;
        },
        close: () => stream.close(),
      };
    },
  };
}
