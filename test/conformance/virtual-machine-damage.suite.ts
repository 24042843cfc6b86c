/** Part of virtual-machine.suite.ts: checkpoints that arrive damaged or cut, and what the machine then is. */
import { expect, test } from 'vitest';
import { loadVm, type Store, saveVm } from '../../src/index.ts';
import {
  type Alteration,
  alteredStore,
  type FoundFrame,
  framesOf,
  readAll,
} from '../support/altered-store.ts';
import { type Bench, type TestMachine, usedMachine } from './virtual-machine-bench.ts';

const tagType = 0x03;
const pageBlockType = 0x12;
const endType = 0x20;

interface Damage {
  readonly name: string;
  readonly code: string;
  /** False: noticed before the machine was touched. */
  readonly touches: boolean;
  alter(frames: readonly FoundFrame[]): Alteration;
}

const damages: readonly Damage[] = [
  {
    name: 'a bit of a page in the middle of memory',
    code: 'CHKPT_DIGEST',
    touches: true,
    alter: (frames) => ({ invertedOffset: middleOf(frames) }),
  },
  {
    name: 'an end in the middle of memory',
    code: 'CHKPT_TRUNCATED',
    touches: true,
    alter: (frames) => ({ byteLength: middleOf(frames) }),
  },
  {
    name: 'a bit of the END frame, behind all of memory',
    code: 'CHKPT_DIGEST',
    touches: true,
    alter: (frames) => ({ invertedOffset: only(frames, endType).offset + 60 }),
  },
  {
    name: 'an end before the END frame, behind all of memory',
    code: 'CHKPT_TRUNCATED',
    touches: true,
    alter: (frames) => ({ byteLength: only(frames, endType).offset }),
  },
  {
    name: 'a bit of the last value before memory',
    code: 'CHKPT_DIGEST',
    touches: false,
    alter: (frames) => ({
      invertedOffset: (frames.findLast(({ type }) => type === tagType)?.offset ?? 0) + 60,
    }),
  },
];

export function describeDamagedLoads(bench: Bench): void {
  test.each(damages.map((damage) => [damage.name, damage] as const))(
    '%s: the load fails, nothing half-loaded runs, a sound one heals',
    async (_, damage) => {
      const { source, target, store, damaged } = await prepare(bench, damage);
      const before = await target.digest();
      await expect(loadVm(target.vm, damaged)).rejects.toMatchObject({ code: damage.code, kind: 'damaged' });
      if (damage.touches) {
        await expect(target.vm.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
        expect(target.vm.running).toBe(false);
        if ('failure' in target.vm) expect(target.vm.failure).toMatchObject({ code: damage.code });
      } else {
        expect(await target.digest()).toBe(before);
      }
      await loadVm(target.vm, store);
      expect(await target.digest()).toBe(await source.digest());
      await target.vm.resume();
      await target.waitForWork();
    },
  );

  test('a mixture is not saved, and a load of a part does not make it whole', async () => {
    const [damage] = damages;
    if (damage === undefined) throw new Error('no damage');
    const { target, store, damaged } = await prepare(bench, damage);
    await expect(loadVm(target.vm, damaged)).rejects.toMatchObject({ kind: 'damaged' });
    const refused = { code: 'CHKPT_VM_FAILED' };
    await expect(saveVm(target.vm, bench.store())).rejects.toMatchObject(refused);
    await expect(loadVm(target.vm, store, { skip: ['memory'] })).rejects.toMatchObject(refused);
    await expect(target.vm.resume()).rejects.toMatchObject(refused);
  });
}

async function prepare(
  bench: Bench,
  damage: Damage,
): Promise<{ source: TestMachine; target: TestMachine; store: Store; damaged: Store }> {
  const source = await usedMachine(bench);
  const target = await (bench.target ?? bench.machine)();
  const store = bench.store();
  await saveVm(source.vm, store);
  const frames = framesOf(await readAll(store));
  return { source, target, store, damaged: alteredStore(store, damage.alter(frames)) };
}

/** A byte inside the PAGE_BLOCK frame that is the middle one of all. */
function middleOf(frames: readonly FoundFrame[]): number {
  const blocks = frames.filter(({ type }) => type === pageBlockType);
  const middle = blocks[blocks.length >> 1];
  if (blocks.length < 8 || middle === undefined)
    throw new Error('the machine has too little memory to be damaged');
  return middle.offset + (middle.byteLength >> 1);
}

function only(frames: readonly FoundFrame[], type: number): FoundFrame {
  const found = frames.filter((frame) => frame.type === type);
  if (found.length !== 1 || found[0] === undefined) throw new Error(`${found.length} frames of type ${type}`);
  return found[0];
}
