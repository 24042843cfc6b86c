/** KVM guests that move while they check themselves: guests/self-check.S says BAD when a page, a register or a device is of another moment. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { guestOptions, Latch, whyNoKvm } from '../../bench/guests/kvm.ts';
import { KvmVm, type KvmVmOptions } from '../../src/adapters/kvm/index.ts';
import {
  type ReceiveReport,
  receiveVm,
  type SendReport,
  type SendVmOptions,
  sendVm,
} from '../../src/index.ts';
import { KvmStart } from './support/kvm-start.ts';

const missing = await whyNoKvm();
if (missing !== undefined) console.warn(`migrations of chkpt/kvm are not tested: ${missing}`);

const mebibyte = 1024 ** 2;
const opened: AsyncDisposable[] = [];
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one[Symbol.asyncDispose]();
});

interface Guest {
  readonly vm: KvmVm;
  work(rounds: number): Promise<void>;
}

async function guest(options: KvmVmOptions): Promise<Guest> {
  const start = new KvmStart();
  const vm = await KvmVm.create({
    ...guestOptions('self-check'),
    ...{ cores: 2, memoryBytes: 32 * mebibyte, devices: [new Latch()] },
    ...{ onSerial: start.onSerial, onEnd: start.onEnd },
    ...options,
  });
  opened.push(vm);
  const rounds = (): number[] =>
    [0, 1].map((core) => Buffer.from(vm.memory.read(0x30_0000 + 64 * core, 4)).readUInt32LE());
  const work = async (count: number): Promise<void> => {
    const goals = rounds().map((done) => done + count);
    for (let tries = 0; rounds().some((done, core) => done < (goals[core] ?? 0)); tries += 1) {
      start.check();
      if (tries === 4000) throw new Error(`the guest does not work: ${goals} ${rounds()}`);
      await sleep(5);
    }
    start.check();
  };
  return { vm, work };
}

interface Moved {
  readonly sent: SendReport;
  readonly received: ReceiveReport;
  readonly destination: Guest;
}

/** The guest of `options` works, moves, and works on. Memory that arrives is what it was when the guest stopped. */
async function move(options: KvmVmOptions, settings: SendVmOptions = {}): Promise<Moved> {
  const folder = await mkdtemp(join(tmpdir(), 'chkpt-kvm-move-'));
  opened.push({
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true, maxRetries: 5 }),
  });
  const [source, destination] = [await guest(options), await guest(options)];
  const digests: (bigint | string | undefined)[] = [];
  const pause = source.vm.pause.bind(source.vm);
  source.vm.pause = async () => {
    const ran = source.vm.running;
    await pause();
    if (ran) digests[0] = await source.vm.memory.digest();
  };
  const resume = destination.vm.resume.bind(destination.vm);
  destination.vm.resume = async () => {
    // After a switch to post-copy pages are still missing, and reading all would fetch them.
    if (settings.strategy !== 'postcopy') digests[1] = await destination.vm.memory.digest();
    await resume();
  };
  source.vm.trackChanges();
  await source.vm.resume();
  await source.work(600);
  let receive: Promise<ReceiveReport> | undefined;
  const address = await new Promise<string>((resolve, reject) => {
    const where = { journal: join(folder, 'destination'), lingerMs: 1000, onListening: resolve };
    receive = receiveVm(destination.vm, `unix:${folder}/socket`, where);
    receive.catch(reject);
  });
  const sent = await sendVm(source.vm, address, { journal: join(folder, 'source'), ...settings });
  const received = (await receive) as ReceiveReport;
  expect(source.vm.running).toBe(false);
  await expect(source.vm.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
  expect(destination.vm.running).toBe(true);
  if (settings.strategy !== 'postcopy') expect(digests[1]).toBe(digests[0]);
  await destination.work(1200);
  return { sent, received, destination };
}

describe.skipIf(missing !== undefined)('a KVM guest moves', () => {
  test.each([
    ['kvm-log', undefined],
    ['kvm-ring', 65_536],
  ] as const)('with %s', async (kind, dirtyRing) => {
    const { sent } = await move({ dirtyRing }, { streams: 2 });
    expect(sent.tracker).toMatchObject({ kind });
    expect(sent.rounds.length).toBeGreaterThan(1);
    expect(sent.rounds.at(1)?.pages).toBeLessThan(8192 / 2);
  });

  test('and is slowed down on a link that is slower than it writes', async ({ skip }) => {
    // Some 20 MiB/s of pages that change as a whole.
    const { sent } = await move(
      {},
      { codec: 'raw', bandwidth: 6 * mebibyte, downtimeTargetMs: 100, strategy: 'force', totalMaxMs: 10_000 },
    );
    // On a busy machine it can write less than the link takes.
    if (sent.throttledShare === 0) skip('the guest was slow enough by itself');
    expect(sent.throttledShare).toBeLessThan(1);
  });

  test.each([
    ['kvm-log', undefined],
    ['kvm-ring', 65_536],
  ] as const)('and works while its pages follow it, with %s', async (kind, dirtyRing) => {
    const switchAtOnce = { strategy: 'postcopy', precopyRounds: 0, bandwidth: 16 * mebibyte } as const;
    const { sent, received } = await move({ dirtyRing }, switchAtOnce);
    await received.postcopy?.resident;
    expect(sent.tracker).toMatchObject({ kind });
    expect(sent.postcopy?.pages).toBeGreaterThan(1000);
  });
});
