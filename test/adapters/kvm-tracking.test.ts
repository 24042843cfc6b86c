/** What a KVM guest writes while it is watched, frozen, brought in page by page, or slowed down. guests/self-check.S notices what is lost. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { guestOptions, whyNoKvm } from '../../bench/guests/kvm.ts';
import { KvmVm, type KvmVmOptions } from '../../src/adapters/kvm/index.ts';
import { GuestMemory, loadVm, MemoryStoreSpace, type PageSet, saveVm } from '../../src/index.ts';
import { KvmStart } from './support/kvm-start.ts';

const missing = await whyNoKvm();
if (missing !== undefined) console.warn(`trackers of chkpt/kvm are not tested: ${missing}`);

const mebibyte = 1024 ** 2;
const bytes = 16 * mebibyte;
const space = new MemoryStoreSpace();
const opened: KvmVm[] = [];
afterEach(async () => {
  for (const vm of opened.splice(0)) await vm.close();
  for (const name of space.names()) space.delete(name);
});

interface Guest {
  readonly vm: KvmVm;
  /** Rounds that each core has done. */
  rounds(): number[];
  /** Resolves when every core has done that many more; throws when the guest has found something wrong. */
  work(rounds: number): Promise<void>;
}

async function guest(options: KvmVmOptions = {}): Promise<Guest> {
  const start = new KvmStart();
  const common = { ...guestOptions('self-check'), cores: 2, memoryBytes: bytes };
  const vm = await KvmVm.create({ ...common, onSerial: start.onSerial, onEnd: start.onEnd, ...options });
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
  return { vm, rounds, work };
}

function copyPages(from: GuestMemory, set: PageSet, to: GuestMemory): number {
  let pages = 0;
  for (const packed of set.runs()) {
    for (let index = 0; index < packed.length; index += 2) {
      const [first, count] = [packed[index] as number, packed[index + 1] as number];
      to.write(first * 4096, from.read(first * 4096, count * 4096));
      pages += count;
    }
  }
  return pages;
}

describe.skipIf(missing !== undefined)('a KVM guest that checks itself', () => {
  test.each([
    ['kvm-log', undefined],
    ['kvm-ring', 65_536],
    ['write-protect', undefined],
  ] as const)(
    'a shadow that copies what %s tells is the memory when the guest stops',
    async (kind, dirtyRing) => {
      const { vm, work } = await guest({ dirtyRing });
      const tracker = vm.trackChanges(kind === 'write-protect' ? { kind } : {});
      expect(tracker.kind).toBe(kind);
      expect(vm.dirtyTracker).toBe(tracker);
      await using shadow = GuestMemory.allocate([{ base: 0, bytes }]);
      await tracker.arm();
      shadow.write(0, vm.memory.read(0, bytes));
      for (let stop = 0; stop < 4; stop += 1) {
        await vm.resume();
        for (let look = 0; look < 25; look += 1) {
          await sleep(stop * 4);
          copyPages(vm.memory, await tracker.harvest(), shadow);
        }
        await work(100);
        await vm.pause();
        const last = await tracker.harvest();
        expect(last.count()).toBeGreaterThan(0);
        expect(last.count()).toBeLessThan(bytes / 4096 / 2);
        copyPages(vm.memory, last, shadow);
        expect(await shadow.digest()).toBe(await vm.memory.digest());
        expect((await tracker.harvest()).count()).toBe(0);
      }
    },
  );

  test('a machine has the log or the rings, and says which', async () => {
    const { vm } = await guest({ dirtyRing: 4096 });
    expect(() => vm.trackChanges({ kind: 'kvm-log' })).toThrow(
      expect.objectContaining({ code: 'CHKPT_UNSUPPORTED' }),
    );
    expect(vm.trackChanges().kind).toBe('kvm-ring');
    const other = await guest();
    expect(() => other.vm.trackChanges({ kind: 'kvm-ring' })).toThrow(
      expect.objectContaining({ code: 'CHKPT_UNSUPPORTED' }),
    );
    for (const dirtyRing of [0, 1000, 512, 1 << 20, 2048.5]) {
      await expect(KvmVm.create({ dirtyRing })).rejects.toThrow(RangeError);
    }
  });

  test.each([
    ['kvm-log', undefined],
    ['kvm-ring', 65_536],
  ] as const)('a live save is of one moment and a parent, with %s', async (_, dirtyRing) => {
    const { vm, work } = await guest({ dirtyRing });
    vm.trackChanges();
    await vm.resume();
    await work(600);
    const parent = space.store('parent');
    const { live } = await saveVm(vm, parent, { live: true });
    expect(live).toMatchObject({ active: true });
    await work(300);
    const store = space.store('child');
    const { totals, tracker } = await saveVm(vm, store, { parent });
    expect(tracker).toMatchObject({ kind: dirtyRing === undefined ? 'kvm-log' : 'kvm-ring' });
    expect(totals?.parentPages).toBeGreaterThan(0);
    await vm.close();
    for (const [store_, parents] of [
      [parent, []],
      [store, [parent]],
    ] as const) {
      const copy = await guest({ dirtyRing });
      await loadVm(copy.vm, store_, { parents });
      expect(Math.min(...copy.rounds())).toBeGreaterThanOrEqual(600);
      await copy.vm.resume();
      await copy.work(600);
    }
  });

  test('it goes on while its memory comes page by page', async () => {
    const source = await guest();
    await source.vm.resume();
    await source.work(600);
    await saveVm(source.vm, space.store('lazy'));
    const target = await guest();
    const { lazy } = await loadVm(target.vm, space.store('lazy'), { lazy: { fillBytesPerSecond: mebibyte } });
    await target.vm.resume();
    await target.work(100);
    if (lazy?.active !== true) throw new Error(`not lazy: ${lazy?.reason}`);
    await target.work(600);
    await lazy.load.resident;
    await target.work(600);
  });

  test('a throttled one works less, and is paused, saved and let go as ever', async () => {
    const { vm, work } = await guest();
    await vm.resume();
    await work(100);
    vm.throttle(0.9);
    await sleep(50);
    // What else the processors have to do makes the guest slower still, never faster.
    const before = process.cpuUsage();
    await sleep(500);
    const { user, system } = process.cpuUsage(before);
    expect(user + system).toBeLessThan(500_000);
    await saveVm(vm, space.store('throttled'));
    await work(20);
    vm.throttle(0);
    await work(600);
    vm.throttle(0.99);
    await sleep(30);
    for (const share of [1, -0.1, Number.NaN]) expect(() => vm.throttle(share)).toThrow(RangeError);
    await vm.close();
    expect(() => vm.throttle(0)).toThrow(expect.objectContaining({ code: 'CHKPT_CLOSED' }));
  });
});
