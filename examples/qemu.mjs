// A real Linux in QEMU, saved while it works, its QEMU ended, and continued in another one:
//   node qemu.mjs GUEST STORE
// GUEST: made by `npm run guest -- amd64`. QEMU: apt-get install qemu-system-x86. RAM is a file in /dev/shm meanwhile.
import { spawnSync } from 'node:child_process';
import { on, once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { createInterface } from 'node:readline';
import { loadVm, saveVm } from 'chkpt';
import { QemuVm } from 'chkpt/qemu';

const [guest, store] = process.argv.slice(2);
if (spawnSync('qemu-system-x86_64', ['--version']).error) {
  console.error('qemu.mjs: qemu-system-x86_64 is missing: apt-get install qemu-system-x86');
  process.exit(3);
}
const folder = mkdtempSync(`${tmpdir()}/qemu-example-`);
const machine = [
  ...['-nodefaults', '-display', 'none', '-machine', 'pc-q35-7.2,accel=tcg', '-cpu', 'qemu64'],
  ...['-kernel', `${guest}/vmlinuz`, '-initrd', `${guest}/initrd.gz`],
  ...['-append', 'console=ttyS0 quiet mitigations=off random.trust_cpu=on'],
  ...['-chardev', `socket,id=s0,path=${folder}/serial,server=on,wait=off`, '-serial', 'chardev:s0'],
];
const start = () => QemuVm.start({ arguments: machine, memoryBytes: 512 << 20 }); // it adds RAM and QMP
/** The serial line of the QEMU that runs now. */
async function plugIn() {
  const line = connect(`${folder}/serial`);
  await once(line, 'connect');
  const lines = createInterface({ input: line }).on('line', (text) => console.log(`guest: ${text}`));
  const says = async (pattern) => {
    for await (const [text] of on(lines, 'line', { close: ['close'] })) if (pattern.test(text)) return;
    throw new Error('the guest has ended');
  };
  return { says, type: (command) => line.write(`${command}\n`) };
}
let vm;
try {
  vm = await start();
  const first = await plugIn();
  await vm.resume(); // until now the guest stood still
  await first.says(/^TICK 2/);
  first.type('head -c 4194304 /dev/urandom > /tmp/noise; sha1sum /tmp/noise');
  await first.says(/^DONE 0/);
  const saved = await saveVm(vm, store);
  const [bytes, still, all] = [saved.checkpointBytes, saved.pausedMs, saved.elapsedMs].map(Math.round);
  console.log(`saved ${bytes} bytes in ${all} ms, the guest stood still for ${still} ms`);
  await vm.close(); // ends QEMU
  vm = await start();
  const { elapsedMs } = await loadVm(vm, store);
  console.log(`loaded into another QEMU in ${elapsedMs.toFixed(0)} ms`);
  const second = await plugIn();
  await vm.resume();
  second.type('sha1sum /tmp/noise');
  await Promise.all([second.says(/^DONE 0/), second.says(/^TICK/)]);
} finally {
  await vm?.close();
  rmSync(folder, { recursive: true });
}
