/** RAM images that chkpt send moves to chkpt receive: whole, or not at all. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, openSync, readdirSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import { RamImages } from '../../src/cli/ram-images.ts';
import { ReceivedImages } from '../../src/cli/received-images.ts';
import { SentImages } from '../../src/cli/sent-images.ts';
import { fileStatesOf } from '../../src/cli/state-argument.ts';
import { receiveVm, sendVm } from '../../src/index.ts';
import { type Cut, LinkProxy } from '../migration/link-proxy.ts';
import { hasOpenssl } from '../transport/support/pki.ts';
import { makeFolder } from './support/folders.ts';
import { runHere } from './support/in-process.ts';
import { listening, securityIn } from './support/listening.ts';
import { digestOf, MiB, makeDenseFile, makeRamFile, noise } from './support/ram-files.ts';
import { type CliResult, chkpt } from './support/run-cli.ts';

const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

const journal = (side: string): string[] => ['--journal', side];

/** Nothing but what was there: no image, no part of one. */
const filesIn = (folder: string): string[] => readdirSync(folder).sort();

/** A receiver whose outputs lie in the folder `there`. */
async function receiving(cwd: string, ...options: string[]): ReturnType<typeof listening> {
  mkdirSync(`${cwd}/there`);
  return await listening(
    ['receive', `unix:${cwd}/s`, '--memory', 'there/ram.img', ...journal('jr'), ...options],
    cwd,
  );
}

const send = (cwd: string, address: string, ...options: string[]): Promise<CliResult> =>
  chkpt(['send', '--memory', 'ram.img', ...journal('js'), ...options, address], { cwd });

/** A send that takes two seconds; `result` when it is on its way. */
async function slowSend(cwd: string, address: string, ...options: string[]) {
  let result: Promise<CliResult> | undefined;
  const child = await new Promise<ChildProcess>((resolve, reject) => {
    result = chkpt(
      ['send', '--memory', 'ram.img', ...journal('js'), '--bandwidth', '8M', ...options, address],
      { cwd, onStart: resolve },
    );
    result.catch(reject);
  });
  await isOnItsWay(`${cwd}/there`);
  return { child, result: result as Promise<CliResult> };
}

async function isOnItsWay(folder: string): Promise<void> {
  const hasBytes = (name: string): boolean =>
    (statSync(join(folder, name), { throwIfNoEntry: false })?.blocks ?? 0) > 0;
  while (!filesIn(folder).some((name) => name.endsWith('.tmp') && hasBytes(name))) await sleep(5);
}

/** A receiver in this process, which nobody waits for when it has failed. */
async function receiveIn(
  cwd: string,
  target: ReceivedImages,
): Promise<{ readonly address: string; readonly received: Promise<unknown> }> {
  return await new Promise((resolve) => {
    const received: Promise<unknown> = receiveVm(target, `unix:${cwd}/s`, {
      ...{ journal: `${cwd}/jr`, ignore: ['id'], lingerMs: 0 },
      onOffer: (offer) => target.prepare(offer),
      onListening: (address) => resolve({ address, received }),
    });
    received.catch(() => undefined);
  });
}

test.each(['unix', ...(hasOpenssl ? ['tls'] : [])])(
  'images and values arrive over %s as they were, in place of what was there',
  async (kind) => {
    const cwd = makeFolder();
    makeRamFile(`${cwd}/low.img`, 8 * MiB, 1);
    makeRamFile(`${cwd}/high.img`, 4 * MiB, 2);
    writeFileSync(`${cwd}/irr.bin`, 'interrupts');
    writeFileSync(`${cwd}/there.low`, 'older');
    const { near, far } = kind === 'tls' ? securityIn(cwd) : { near: [], far: [] };
    const address = kind === 'tls' ? 'tls://127.0.0.1:0' : `unix:${cwd}/s`;
    const receiver = await listening(
      [
        ...['receive', address, '--memory', 'there.high@4G', '--memory', 'there.low', '--json'],
        ...['--state', 'pic.irr=there.irr', ...journal('jr'), ...far],
      ],
      cwd,
    );
    const words = [
      '--memory',
      'low.img',
      '--memory',
      'high.img@4G',
      '--state',
      'pic.irr=irr.bin',
      '--streams',
      '2',
    ];
    const sent = await chkpt(['send', ...words, receiver.address, ...journal('js'), ...near, '--json'], {
      cwd,
    });
    expect([sent.code, sent.stderr]).toEqual([0, '']);
    const { code, stdout } = await receiver.result;
    expect(code).toBe(0);
    expect(JSON.parse(stdout.toString())).toMatchObject({
      ...{ command: 'receive', memoryBytes: 12 * MiB },
      memory: [
        { path: 'there.low', base: 0, bytes: 8 * MiB },
        { path: 'there.high', base: 4 * 2 ** 30, bytes: 4 * MiB },
      ],
      state: [{ context: 'pic', tag: 'irr', path: 'there.irr', bytes: 10 }],
    });
    expect(JSON.parse(sent.stdout.toString())).toMatchObject({ command: 'send', memoryBytes: 12 * MiB });
    expect(await digestOf(`${cwd}/there.low`)).toBe(await digestOf(`${cwd}/low.img`));
    expect(await digestOf(`${cwd}/there.high`)).toBe(await digestOf(`${cwd}/high.img`));
    expect(readFileSync(`${cwd}/there.irr`, 'utf8')).toBe('interrupts');
    expect(statSync(`${cwd}/there.low`).mode & 0o777).toBe(0o600);
    expect(filesIn(cwd).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  },
);

test('an image that is written while it is sent arrives as it is when nobody writes any more', async () => {
  const cwd = makeFolder();
  makeDenseFile(`${cwd}/ram.img`, 8 * MiB);
  const receiver = await receiving(cwd);
  const { result } = await slowSend(cwd, receiver.address, '--json');
  const file = openSync(`${cwd}/ram.img`, 'r+');
  for (let round = 0; round < 25; round += 1) {
    // Content, a few words of a page again and again, and pages that become zeros after they were sent.
    writeSync(file, noise(4096, round), 0, 4096, (round % 40) * 4096);
    writeSync(file, Buffer.from([round]), 0, 1, 60 * 4096);
    writeSync(file, Buffer.alloc(4096), 0, 4096, (100 + round) * 4096);
    await sleep(10);
  }
  const { code, stdout, stderr } = await result;
  expect([code, stderr]).toEqual([0, '']);
  const { rounds, tracker } = JSON.parse(stdout.toString());
  expect(rounds.length).toBeGreaterThan(1);
  expect(rounds[1].pages).toBeGreaterThan(25);
  expect(tracker.kind).toBe('digest');
  expect((await receiver.result).code).toBe(0);
  expect(await digestOf(`${cwd}/there/ram.img`)).toBe(await digestOf(`${cwd}/ram.img`));
});

test('an image that somebody goes on writing stays: there is no moment at which it is what was sent', async () => {
  const cwd = makeFolder();
  makeDenseFile(`${cwd}/ram.img`, 4 * MiB);
  const write = `const f = require('fs'), d = f.openSync('ram.img', 'r+'); let n = 0;
    (function go() { f.writeSync(d, Buffer.from([n++ & 255]), 0, 1, 4096); setImmediate(go); })()`;
  children.push(spawn(process.execPath, ['-e', write], { cwd, stdio: 'ignore' }));
  mkdirSync(`${cwd}/there`);
  const target = new ReceivedImages([{ path: `${cwd}/there/ram.img`, base: undefined }], [], 'unix:s');
  const { address, received } = await receiveIn(cwd, target);
  const { code, stderr } = await send(cwd, address);
  expect([code, stderr]).toEqual([1, expect.stringMatching(/^chkpt: CHKPT_VM_RUNNING: .*ram\.img.*\n$/)]);
  await expect(received).rejects.toThrow();
  await target.close();
  expect(filesIn(`${cwd}/there`)).toEqual([]);
});

test('a link that is cut: the image goes on over the next one, and arrives', async () => {
  const cwd = makeFolder();
  makeDenseFile(`${cwd}/ram.img`, 8 * MiB);
  const receiver = await receiving(cwd);
  const cut: Cut = { connection: 1, direction: 'toDestination', afterBytes: 3_000_000, how: 'reset' };
  await using proxy = await LinkProxy.open(`${cwd}/proxy`, receiver.address, cut);
  const { code, stdout } = await send(cwd, proxy.address, '--json');
  expect(code).toBe(0);
  expect(JSON.parse(stdout.toString()).reconnects).toBe(1);
  expect((await receiver.result).code).toBe(0);
  expect(await digestOf(`${cwd}/there/ram.img`)).toBe(await digestOf(`${cwd}/ram.img`));
});

test.each(['send', 'receive'] as const)(
  'Ctrl-C of %s while pages come: the image stays, there is no part of it there, and both say why',
  async (who) => {
    const cwd = makeFolder();
    makeDenseFile(`${cwd}/ram.img`, 8 * MiB);
    const before = await digestOf(`${cwd}/ram.img`);
    const receiver = await receiving(cwd);
    writeFileSync(`${cwd}/there/ram.img`, 'older');
    const sender = await slowSend(cwd, receiver.address);
    (who === 'send' ? sender : receiver).child.kill('SIGINT');
    const [sent, received] = [await sender.result, await receiver.result];
    const [stopped, other] = who === 'send' ? [sent, received] : [received, sent];
    expect(stopped.code).toBe(130);
    expect([other.code, other.stderr]).toEqual([1, expect.stringMatching(/CHKPT_(ABORTED|PEER_REFUSED)/)]);
    expect(filesIn(`${cwd}/there`)).toEqual(['ram.img']);
    expect(readFileSync(`${cwd}/there/ram.img`, 'utf8')).toBe('older');
    expect(await digestOf(`${cwd}/ram.img`)).toBe(before);
  },
);

test('a sender that is killed leaves nothing there when its receiver is ended', async () => {
  const cwd = makeFolder();
  makeDenseFile(`${cwd}/ram.img`, 8 * MiB);
  const receiver = await receiving(cwd);
  const { child, result } = await slowSend(cwd, receiver.address);
  child.kill('SIGKILL');
  expect((await result).signal).toBe('SIGKILL');
  receiver.child.kill('SIGINT');
  expect((await receiver.result).code).toBe(130);
  expect(filesIn(`${cwd}/there`)).toEqual([]);
});

test('memory that does not fit is refused on both sides, and no file appears', async () => {
  const cwd = makeFolder();
  makeRamFile(`${cwd}/ram.img`, MiB);
  const receiver = await receiving(cwd);
  const { code, stderr } = await send(cwd, receiver.address, '--memory', 'ram.img@4G');
  expect([code, stderr]).toEqual([
    1,
    expect.stringMatching(/^chkpt: CHKPT_PEER_REFUSED: CHKPT_VM_REGIONS: /),
  ]);
  const received = await receiver.result;
  expect([received.code, received.stderr]).toEqual([1, expect.stringContaining('chkpt: CHKPT_VM_REGIONS: ')]);
  expect(filesIn(`${cwd}/there`)).toEqual([]);
});

test.each([
  ['CHKPT_VM_DEVICES', ['pic.irr=ram.img'], []],
  ['CHKPT_VM_DEVICES', [], ['pic.irr=irr']],
  ['CHKPT_NO_TAG', ['pic.irr=ram.img'], ['pic.imr=imr']],
  ['CHKPT_UNSUPPORTED', ['pic.irr=ram.img'], ['pic.irr=folder']],
])('values that do not fit are refused, and no file appears: %s %j %j', async (code, sent, expected) => {
  const cwd = makeFolder();
  makeRamFile(`${cwd}/ram.img`, MiB);
  mkdirSync(`${cwd}/there/folder`, { recursive: true });
  const statesIn = (folder: string, texts: string[]) =>
    fileStatesOf(texts.map((text) => text.replace('=', `=${folder}/`)));
  const images = await RamImages.open([{ path: `${cwd}/ram.img`, base: undefined }]);
  const states = statesIn(cwd, sent);
  const source = await SentImages.open(images, { id: 'vm', states, signal: new AbortController().signal });
  const output = [{ path: `${cwd}/there/ram.img`, base: undefined }];
  const target = new ReceivedImages(output, statesIn(`${cwd}/there`, expected), 'unix:s');
  const { address, received } = await receiveIn(cwd, target);
  await expect(sendVm(source, address, { journal: `${cwd}/js` })).rejects.toMatchObject({
    code: 'CHKPT_PEER_REFUSED',
    message: expect.stringContaining(code),
  });
  await expect(received).rejects.toMatchObject({ code });
  await target.close();
  await source.close();
  await images.close();
  expect(filesIn(`${cwd}/there`)).toEqual(['folder']);
});

test('options that do not go together are told before anything is opened', async () => {
  const cwd = makeFolder();
  const address = `unix:${cwd}/s`;
  for (const words of [
    ['send', address],
    ['send', '--memory', 'a', '--qemu', 'q', address],
    ['send', '--memory', 'a', '--state', 'a.b=-', address],
    ['receive', address],
    ['receive', address, 'a.chkpt', '--memory', 'a'],
    ['receive', address, '--memory', 'a', '--qemu', 'q'],
    ['receive', address, 'a.chkpt', '--state', 'a.b=c'],
    ['receive', address, '--memory', 'a', '--count', '2'],
  ]) {
    expect([words, await runHere(words, cwd)]).toMatchObject([words, { code: 2 }]);
  }
  expect(filesIn(cwd)).toEqual([]);
});
