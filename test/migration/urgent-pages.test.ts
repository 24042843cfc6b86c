/** What a source answers when it is asked for pages. */
import { expect, test } from 'vitest';
import { GuestMemory, PageSet } from '../../src/memory/index.ts';
import { UrgentPages } from '../../src/migration/source/urgent-pages.ts';

const kib = 1024;

/** Regions of 10 and 30 pages: blocks of 16 go over their border. */
async function makeUrgent() {
  const memory = GuestMemory.allocate([
    { base: 0, bytes: 40 * kib },
    { base: 1024 * kib, bytes: 120 * kib },
  ]);
  const all = (): PageSet => {
    const pages = new PageSet(memory.pageCount);
    pages.markRun(0, memory.pageCount);
    return pages;
  };
  const lacking = all();
  const pending = all();
  const urgent = new UrgentPages(() => memory, lacking, pending);
  const records: string[] = [];
  let isBroken = false;
  const channel = {
    send: async (_: unknown, payload = new Uint8Array()) => {
      if (isBroken) throw new Error('gone');
      const view = new DataView(payload.buffer, payload.byteOffset);
      records.push(`${view.getBigUint64(0, true)}+${view.getUint32(8, true)}`);
    },
    destroy: () => {
      isBroken = true;
    },
  };
  const ask = async (...pages: number[]): Promise<string[]> => {
    records.length = 0;
    urgent.want(Float64Array.from(pages));
    await new Promise((resolve) => setImmediate(resolve));
    return [...records];
  };
  return { memory, lacking, pending, urgent, channel, ask };
}

test('a page goes with its neighbours of the block, of one region, and once', async () => {
  const { memory, lacking, pending, urgent, channel, ask } = await makeUrgent();
  urgent.use(channel);
  expect(await ask(12)).toEqual(['10+6']);
  expect(await ask(3)).toEqual(['0+10']);
  expect(await ask(11, 12, 39)).toEqual(['32+8']);
  expect([pending.count(), lacking.count()]).toEqual([16, 40]);
  urgent.placed(2);
  expect(lacking.count()).toBe(24);
  // Acknowledged, and not in its place all the same.
  expect(await ask(0, 12)).toEqual(['0+1', '12+1']);
  expect(() => urgent.placed(1)).toThrow(/receipt/);
  expect(() => urgent.placed(6)).toThrow(/receipt/);
  expect(() => urgent.want(Float64Array.of(40))).toThrow(/not/);
  await memory.close();
});

test('what was not placed when a link broke is to be sent again, by whoever comes first', async () => {
  const { memory, lacking, pending, urgent, channel, ask } = await makeUrgent();
  urgent.use(channel);
  await ask(0, 20);
  urgent.placed(1);
  expect([pending.count(), lacking.count()]).toEqual([14, 30]);
  urgent.pause();
  expect(await ask(39)).toEqual([]);
  urgent.use({ ...channel });
  // What was asked for in between went first.
  expect(await ask(20)).toEqual(['16+16']);
  expect([pending.count(), lacking.count()]).toEqual([6, 30]);
  urgent.placed(1);
  expect([pending.count(), lacking.count()]).toEqual([6, 22]);
  await memory.close();
});
