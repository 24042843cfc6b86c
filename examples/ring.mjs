// Lets a machine do something again and again from one state, and takes back what it did.
import { CheckpointRing } from 'chkpt';
import { SyntheticVm } from 'chkpt/synthetic';

const vm = await SyntheticVm.create({ memoryBytes: 64 * 1024 * 1024, pagesPerSecond: 20_000 });
const ring = await CheckpointRing.open(vm, { capacity: 4 });
await vm.resume();
const ready = await ring.save({ label: 'ready' });
for (let round = 0; round < 3; round += 1) {
  await new Promise((resolve) => setTimeout(resolve, 50)); // the guest runs
  const { changed, elapsedMs } = await ring.rollback(ready);
  console.log(`${changed.pagesWritten} of ${vm.memory.pageCount} pages back in ${elapsedMs.toFixed()} ms`);
}
await ring.close();
await vm.close();
