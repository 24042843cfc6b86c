// Moves a running machine from one process to another:
//   node migrate.mjs receive unix:/tmp/here &
//   node migrate.mjs send unix:/tmp/here
import { receiveVm, sendVm } from 'chkpt';
import { SyntheticVm } from 'chkpt/synthetic';

const [, , side, address = 'unix:/tmp/chkpt-migrate'] = process.argv;
const vm = await SyntheticVm.create({ id: 'example', memoryBytes: 256 * 1024 * 1024, pagesPerSecond: 2000 });
if (side === 'send') {
  vm.trackChanges();
  await vm.resume();
  await new Promise((resolve) => setTimeout(resolve, 200)); // the guest runs
  const { rounds, downtime, bytesSent } = await sendVm(vm, address);
  console.log(`sent ${rounds.length} rounds, ${(bytesSent / 2 ** 20).toFixed(1)} MiB`);
  console.log(`the guest stood still for ${downtime.totalMs.toFixed(1)} ms`);
} else {
  const onListening = (where) => console.log(`listening at ${where}`);
  const { remote } = await receiveVm(vm, address, { onListening });
  await new Promise((resolve) => setTimeout(resolve, 200));
  await vm.pause();
  const { stamped, damaged } = await vm.checkStamps();
  console.log(`runs here, from ${remote}: ${stamped} pages of its own, ${damaged} of them damaged`);
}
await vm.close();
