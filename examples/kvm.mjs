// A guest under /dev/kvm that checks itself, saved while it works and continued in another process:
//   node kvm.mjs save GUEST STORE     runs GUEST, saves it, and lets it run on until it is killed
//   node kvm.mjs load GUEST STORE     loads it, and the guest finds everything as it left it
// GUEST: out/guests/self-check.bin, made by `npm run build:guests` of guests/self-check.S.
import { readFileSync } from 'node:fs';
import { defineState, loadVm, saveVm, statePart, u32 } from 'chkpt';
import { KvmVm } from 'chkpt/kvm';

const [mode, guest, store] = process.argv.slice(2);

// A device that JavaScript serves: the guest's port 0x500 keeps what was written last, also in checkpoints.
let latch = 0;
const get = () => ({ value: latch });
const set = ({ value }) => {
  latch = value;
};
const device = {
  id: 'latch',
  deviceClass: 'example.latch',
  ports: { first: 0x500, count: 4 },
  read: () => latch,
  write: (_, value) => set({ value: Number(value) }),
  contexts: [{ name: 'latch', parts: [statePart({ state: defineState({ value: u32 }), get, set })] }],
};

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
const vm = await KvmVm.create({ memoryBytes: 64 << 20, cores: 2, image, devices: [device], onSerial });
if (mode === 'save') {
  await vm.resume();
  await worked;
  const { checkpointBytes, pausedMs } = await saveVm(vm, store);
  console.log(`saved ${checkpointBytes} bytes, the guest stood still for ${pausedMs.toFixed(1)} ms`);
} else {
  const { elapsedMs } = await loadVm(vm, store);
  console.log(`loaded in ${elapsedMs.toFixed(1)} ms`);
  await vm.resume();
  await worked;
  await vm.close();
}
