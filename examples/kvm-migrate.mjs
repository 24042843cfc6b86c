// A guest under /dev/kvm that checks itself moves from one process to another while it works:
//   node kvm-migrate.mjs receive GUEST unix:/tmp/here &
//   node kvm-migrate.mjs send GUEST unix:/tmp/here
// GUEST: out/guests/self-check.bin, made by `npm run build:guests` of guests/self-check.S.
import { readFileSync } from 'node:fs';
import { receiveVm, sendVm } from 'chkpt';
import { KvmVm } from 'chkpt/kvm';

const [, , side, guest, address] = process.argv;

let text = ''; // of the guest's serial port
let rounds = 0;
let resolveWorked;
function onSerial(bytes) {
  const lines = (text + Buffer.from(bytes)).split('\n');
  text = lines.pop();
  for (const line of lines) console.log(`guest: ${line}`);
  rounds += lines.length;
  if (lines.some((line) => /[A-Z]/.test(line))) process.exit(1); // "BAD", also when two cores say it at once
  if (rounds >= 8) resolveWorked?.();
}
const worked = new Promise((resolve) => {
  resolveWorked = resolve;
});

const image = { bytes: readFileSync(guest), address: 0x10_0000, mode: 'protected', cores: 'all' };
// Without `dirtyRing` the machine has KVM's dirty log, which does as well.
const vm = await KvmVm.create({ memoryBytes: 64 << 20, cores: 2, image, dirtyRing: 65_536, onSerial });
if (side === 'send') {
  console.log(`tracker: ${vm.trackChanges().kind}`);
  await vm.resume();
  await worked;
  const { rounds: sent, downtime } = await sendVm(vm, address);
  console.log(`sent ${sent.length} rounds, the guest stood still for ${downtime.totalMs.toFixed(1)} ms`);
} else {
  const { remote } = await receiveVm(vm, address, { onListening: () => console.log('listening') });
  console.log(`runs here, from ${remote}`);
  await worked;
}
await vm.close();
