/** QEMU guests that run under KVM instead of QEMU's own translation. */
import { execFileSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { assembleGuest } from '../../bench/guests/assembled.ts';
import { qemuCommand, whyNoQemu } from '../../bench/guests/qemu.ts';
import { QemuVm } from '../../src/adapters/qemu/index.ts';
import { inspectCheckpoint, loadVm, MemoryStoreSpace, saveVm } from '../../src/index.ts';
import { counterOf, isOfOneMoment, registersOf, untilSteps } from './support/stamp-guest.ts';

/** Without what a KVM in software lacks. */
const cpu = 'qemu64,-svm';
const machine = (accelerator: string, processor = cpu): string[] => [
  ...['-nodefaults', '-display', 'none', '-vga', 'none', '-no-reboot', '-cpu', processor],
  ...['-machine', `pc-i440fx-7.2,accel=${accelerator}`],
];

/** Why QEMU cannot use KVM here; undefined when it can. It is asked for a machine whose guest never starts. */
function whyNoKvm(): string | undefined {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    const ended = { input: 'quit\n', stdio: 'pipe', timeout: 20_000 } as const;
    execFileSync(qemuCommand, [...machine('kvm'), '-m', '16', '-S', '-monitor', 'stdio'], ended);
    return undefined;
  } catch (error) {
    return String((error as { stderr?: Buffer }).stderr ?? error).trim();
  }
}

const missing = whyNoQemu() ?? whyNoKvm();
if (missing !== undefined) console.warn(`chkpt/qemu is not tested with KVM: ${missing}`);
const guest = missing === undefined ? assembleGuest('stamp-pages', 'elf') : '';
/** A KVM in software does some hundred in a second. */
const steps = 100;

const space = new MemoryStoreSpace();
afterEach(() => {
  for (const name of space.names()) space.delete(name);
});

function start(accelerator: string, processor?: string): Promise<QemuVm> {
  const parameters = [...machine(accelerator, processor), '-kernel', guest];
  return QemuVm.start({ arguments: parameters, memoryBytes: 32 << 20 });
}

describe.skipIf(missing !== undefined)('a QEMU guest under KVM', () => {
  test('is saved while it runs, and goes on in another QEMU', async () => {
    await using target = await start('kvm');
    {
      await using source = await start('kvm');
      await source.resume();
      await untilSteps(source, steps);
      await saveVm(source, space.store('running'));
      expect(source.running).toBe(true);
      await untilSteps(source, counterOf(source) + 10);
    }
    await loadVm(target, space.store('running'));
    const loaded = counterOf(target);
    expect(loaded).toBeGreaterThanOrEqual(steps);
    expect(await isOfOneMoment(target)).toBe(true);
    await target.resume();
    await untilSteps(target, loaded + 10);
    await target.pause();
    expect(await isOfOneMoment(target)).toBe(true);
    await using inspection = await inspectCheckpoint(space.store('running'));
    expect((await inspection.readTag('qemu', 'accelerator')).value).toBe('kvm');
  });

  test('is equal after a load, memory and registers', async () => {
    // Otherwise KVM writes the guest's clock into its memory when the state is set.
    const processor = `${cpu},kvmclock=off`;
    await using source = await start('kvm', processor);
    await using target = await start('kvm', processor);
    await source.resume();
    await untilSteps(source, steps);
    await source.pause();
    await saveVm(source, space.store('still'));
    await loadVm(target, space.store('still'));
    expect(await target.memory.digest()).toBe(await source.memory.digest());
    expect(await registersOf(target)).toBe(await registersOf(source));
  });

  test('and one without KVM do not load each other, and are as before', async () => {
    await using kvm = await start('kvm');
    await using tcg = await start('tcg');
    for (const [source, target] of [
      [kvm, tcg],
      [tcg, kvm],
    ] as const) {
      await saveVm(source, space.store('other'));
      const before = await target.memory.digest();
      await expect(loadVm(target, space.store('other'))).rejects.toMatchObject({
        code: 'CHKPT_VM_MACHINE',
        details: { context: 'qemu', tag: 'accelerator' },
      });
      expect(await target.memory.digest()).toBe(before);
    }
    await kvm.resume();
    await untilSteps(kvm, 1);
  });
});
