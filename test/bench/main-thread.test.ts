import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { measureDelay, measureUse, threadCpuMs } from '../../bench/main-thread.ts';

const blockMs = 60;

function block(): void {
  const end = performance.now() + blockMs;
  while (performance.now() < end);
}

test('a block of the event loop is seen wherever it stands in the work', async () => {
  const places = [
    async () => block(),
    async () => {
      await sleep(20);
      block();
    },
    async () => {
      block();
      await sleep(20);
    },
  ];
  for (const work of places) expect((await measureDelay(work)).maxMs).toBeGreaterThan(blockMs * 0.9);
});

test('CPU time counts computing and not waiting', async () => {
  const waiting = await measureUse(() => sleep(200));
  expect(waiting.busy).toBeLessThan(0.5);
  const begin = threadCpuMs();
  // As long as it takes: another process may have the processor.
  const deadline = performance.now() + 10_000;
  while (threadCpuMs() - begin < blockMs && performance.now() < deadline);
  expect(threadCpuMs() - begin).toBeGreaterThanOrEqual(blockMs);
});
