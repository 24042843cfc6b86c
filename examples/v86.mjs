// A real Linux in v86 (`npm run guest -- i386`; apt-get install seabios) that goes on in another process:
//   node v86.mjs save GUEST STORE, then load GUEST STORE    what it was doing is saved and loaded
//   node v86.mjs receive GUEST unix:PATH, and send GUEST unix:PATH beside it    it moves while it works
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { loadVm, receiveVm, saveVm, sendVm } from 'chkpt';
import { V86Vm } from 'chkpt/v86';
import { V86 } from 'v86';

const [mode, folder, store] = process.argv.slice(2);
const file = (path) => ({ buffer: new Uint8Array(readFileSync(path)).buffer });

const emulator = new V86({
  wasm_path: createRequire(import.meta.url).resolve('v86/build/v86.wasm'),
  memory_size: 128 << 20,
  vga_memory_size: 2 << 20,
  bios: file('/usr/share/seabios/bios.bin'),
  vga_bios: file('/usr/share/seabios/vgabios-stdvga.bin'),
  bzimage: file(`${folder}/vmlinuz`),
  initrd: file(`${folder}/initrd.gz`),
  cmdline: 'console=ttyS0 quiet tsc=reliable mitigations=off random.trust_cpu=on nowatchdog 8250.nr_uarts=1',
  preserve_mac_from_state_image: true, // or the loaded guest gets another network card
  autostart: false,
});
await new Promise((ready) => emulator.add_listener('emulator-ready', ready));
let line = ''; // of the guest's serial port
const waiting = [];
emulator.add_listener('serial0-output-byte', (byte) => {
  const character = String.fromCharCode(byte);
  line += character;
  if (character !== '\n') return;
  console.log(`guest: ${line.trim()}`);
  for (const { pattern, resolve } of waiting.filter(({ pattern }) => pattern.test(line))) resolve(pattern);
  line = '';
});
const says = (pattern) => new Promise((resolve) => waiting.push({ pattern, resolve }));
const type = (command) => emulator.serial0_send(`${command}\n`);
const vm = await V86Vm.wrap(emulator);
vm.trackChanges();
if (mode === 'save' || mode === 'send') {
  const [up, done] = [says(/^TICK 3/), says(/^DONE 0/)];
  await vm.resume();
  await up;
  type('head -c 4194304 /dev/urandom > /tmp/noise; sha1sum /tmp/noise');
  await done;
  const { pausedMs, downtime } = await (mode === 'save' ? saveVm : sendVm)(vm, store);
  console.log(`${mode}: the guest stood still for ${(pausedMs ?? downtime.totalMs).toFixed(0)} ms`);
  if (mode === 'send') process.exit();
} else {
  const [done, tick] = [says(/^DONE 0/), says(/^TICK/)];
  const { elapsedMs } = await (mode === 'load' ? loadVm : receiveVm)(vm, store);
  console.log(`loaded in ${elapsedMs.toFixed(0)} ms`);
  if (mode === 'load') await vm.resume();
  type('sha1sum /tmp/noise');
  await Promise.all([done, tick]);
  await vm.pause();
  await vm.close();
  await emulator.destroy();
}
