/** `copyMemory`: the checkpoint is of the moment of the pause, whatever the guest did before and does after it. */
import { expect, test, vi } from 'vitest';
import { GuestMemory, MemoryStoreSpace, type Store, saveVm, type VirtualMachine } from '../../src/index.ts';
import { readAll } from '../support/altered-store.ts';

const mebibyte = 1024 ** 2;
const regions = [
  { base: 0, bytes: 24 * mebibyte },
  { base: 4 * 1024 ** 3, bytes: 8 * mebibyte },
];
const page = (seed: number): Uint8Array =>
  Uint8Array.from({ length: 4096 }, (_, i) => 1 + (((seed * 2654435761 + i * i) >>> 8) % 255));

/** A machine whose guest writes at the very moments before and after it stands still. */
class Restless implements VirtualMachine {
  readonly id = 'restless';
  readonly cpu = { vendor: 'test', model: 'test' };
  readonly cores = [];
  readonly devices = [];
  readonly memory = GuestMemory.allocate(regions);
  running = false;
  resumes = 0;

  /** Pages far apart and whole runs; `seed` 0 clears them. */
  scribble(seed: number, every: number): void {
    for (let at = 0; at < 24 * mebibyte; at += every * 4096)
      this.memory.write(at, seed === 0 ? new Uint8Array(4096) : page(seed + at));
    this.memory.write(4 * 1024 ** 3 + 5 * 4096, page(seed));
  }

  async pause(): Promise<void> {
    this.scribble(7, 3);
    this.scribble(0, 11);
    this.running = false;
  }

  async resume(): Promise<void> {
    this.resumes += 1;
    this.running = true;
    this.scribble(9, 2);
  }

  beginLoad(): void {}
  endLoad(): void {}
}

const fixed = { uuid: '11111111-2222-4333-8444-555555555555', createdMs: 1 } as const;
const store = (): Store => new MemoryStoreSpace().store('copy');

test('gives the bytes of a save of the guest as it stood still, though it wrote before and after', async () => {
  const vm = new Restless();
  vm.scribble(1, 5);
  vm.running = true;
  const [copied, plain] = [store(), store()];
  const { pausedMs } = await saveVm(vm, copied, { ...fixed, copyMemory: true });
  expect(pausedMs).toBeGreaterThan(0);
  expect(vm.running).toBe(true);
  expect(vm.resumes).toBe(1);

  const reference = new Restless();
  reference.scribble(1, 5);
  await reference.pause();
  await saveVm(reference, plain, fixed);
  expect(Buffer.compare(await readAll(copied), await readAll(plain))).toBe(0);

  // And it is a real difference: now the guest has gone on.
  const later = store();
  await vm.pause();
  vm.scribble(9, 2);
  await saveVm(vm, later, fixed);
  expect(Buffer.compare(await readAll(later), await readAll(plain))).not.toBe(0);
  await Promise.all([vm.memory.close(), reference.memory.close()]);
});

test('a machine that somebody pauses while its copy is written stays paused', async () => {
  const vm = new Restless();
  vm.running = true;
  await saveVm(vm, store(), {
    copyMemory: true,
    onProgress: ({ phase }) => {
      if (phase === 'memory') vm.running = false;
    },
  });
  expect(vm.running).toBe(false);
  expect(vm.resumes).toBe(1);
  await vm.memory.close();
});

test('changes nothing for a machine that stands still', async () => {
  const vm = new Restless();
  vm.scribble(1, 5);
  const [copied, plain] = [store(), store()];
  expect((await saveVm(vm, copied, { ...fixed, copyMemory: true })).pausedMs).toBe(0);
  await saveVm(vm, plain, fixed);
  expect(vm.resumes).toBe(0);
  expect(Buffer.compare(await readAll(copied), await readAll(plain))).toBe(0);
  await vm.memory.close();
});

test('a machine that stops by itself while it is copied is not let run', async () => {
  const vm = new Restless();
  vm.running = true;
  const allocate = GuestMemory.allocate.bind(GuestMemory);
  const spy = vi.spyOn(GuestMemory, 'allocate').mockImplementation((...parameters) => {
    vm.running = false;
    return allocate(...parameters);
  });
  const { pausedMs } = await saveVm(vm, store(), { copyMemory: true });
  expect(spy).toHaveBeenCalledOnce();
  spy.mockRestore();
  expect(pausedMs).toBe(0);
  expect(vm.resumes).toBe(0);
  await vm.memory.close();
});

test('the copy is given back with the save, not when it is collected', async () => {
  const bytes = 256 * mebibyte;
  const memory = GuestMemory.allocate([{ base: 0, bytes }]);
  await memory.native.fillGuestLike(1n, 2);
  const vm: VirtualMachine = Object.assign(new Restless(), { memory, pause: async () => {} });
  Object.assign(vm, { running: true, resume: async () => {} });
  await saveVm(vm, 'null:'); // buffers and code that stay
  const before = process.memoryUsage().rss;
  await saveVm(vm, 'null:', { copyMemory: true });
  expect(process.memoryUsage().rss - before).toBeLessThan(bytes / 4);
  await memory.close();
});
