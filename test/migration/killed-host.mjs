/**
 * One end of a migration in a process of its own, which dies of SIGKILL at a moment that it is told.
 *
 *   node killed-host.mjs BUILD source|destination FOLDER MIGRATION [POINT]
 *
 * FOLDER/security.json, if it is there, says where to listen, and with which certificates or one-time key.
 *
 * Says on standard output, one JSON document to a line: { stopped: digest }, { arrived: digest }, { end }, { settled }.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { runUnderLease } from './lease.mjs';
import { watchPoints } from './points.mjs';

const [build, role, folder, migration, point] = process.argv.slice(2);
const from = async (path) => await import(join(build, path));
const { receiveVm, sendVm } = await from('index.js');
const { SyntheticVm } = await from('adapters/synthetic/index.js');
const { Journal } = await from('migration/journal.js');
const { RecordChannel } = await from('migration/wire/record-channel.js');

const pauseMs = 60;
const say = (document) => process.stdout.write(`${JSON.stringify(document)}\n`);
watchPoints({ Journal, RecordChannel }, async (now) => {
  if (now !== point) return;
  // What is to wait for a record or a message, and does not, shows.
  if (point.includes(' before ')) await sleep(pauseMs);
  process.kill(process.pid, 'SIGKILL');
  // Until the signal is there.
  for (;;);
});

const isSource = role === 'source';
const vm = await SyntheticVm.create({
  id: 'guest',
  memoryBytes: 2 * 2 ** 20,
  pagesPerSecond: 500,
  guestLike: isSource,
});
const [pause, resume] = [vm.pause.bind(vm), vm.resume.bind(vm)];
vm.pause = async () => {
  await pause();
  if (isSource) say({ stopped: await vm.digest() });
};
vm.resume = async () => {
  if (!isSource) say({ arrived: await vm.digest() });
  await resume();
};
runUnderLease(vm, join(folder, 'lease'), role);
const journal = join(folder, role);
const facts = join(folder, 'security.json');
const given = existsSync(facts) ? JSON.parse(readFileSync(facts, 'utf8')) : undefined;
const security = {
  ...(given?.tls && { tls: { ...given.tls, authorise: () => true } }),
  ...(given?.psk && { psk: { ...given.psk, key: Buffer.from(given.psk.key, 'hex') } }),
};
const address = join(folder, 'address');
const onListening = (url) => {
  writeFileSync(`${address}.new`, url);
  renameSync(`${address}.new`, address);
};
const settle = async (operation) => {
  try {
    await operation;
    say({ end: 'moved' });
  } catch (error) {
    say({ end: error.code ?? String(error), running: vm.running });
    if (error.code === 'CHKPT_IN_DOUBT') say({ settled: await error.resolve(), running: vm.running });
  }
};
if (isSource) {
  while (!existsSync(address)) await sleep(5);
  await vm.resume();
  await settle(
    sendVm(vm, readFileSync(address, 'utf8'), {
      ...{ migration, journal, reconnectMs: 3000, inDoubtMs: 300, downtimeMaxMs: 2000 },
      ...security,
    }),
  );
} else {
  const url = given?.url ?? `unix:${join(folder, 'socket')}`;
  await settle(receiveVm(vm, url, { journal, lingerMs: 3000, onListening, ...security }));
}
// The guest goes on until somebody ends it.
setInterval(() => undefined, 1000);
