/**
 * A process is killed between any two calls of a save, and in the middle of any write. Whoever comes
 * afterwards finds the older checkpoint or the newer one, byte for byte, can save, and leaves nothing of the
 * dead behind.
 */
import { cpSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { FaultFileSystem, WorldStopped } from './support/fault-file-system.ts';
import { listTree, makeFolder } from './support/folders.ts';
import { endedPid, type FileScheme, openIn } from './support/hosts.ts';
import { isSame, load, type SampleStream, sampleStream, save } from './support/sample-stream.ts';

const older = sampleStream('older');
const newer = sampleStream('newer');
const newest = sampleStream('newest');
/** What comes after the dead. */
const next = sampleStream('next', [
  ['start', 'start', 64],
  ['end', 'end', 32],
]);

describe.each<FileScheme>(['file', 'dir'])('%s:', (scheme) => {
  test('a first save killed at any point leaves nothing or the whole checkpoint', async () => {
    const points = await countCalls(scheme, makeFolder());
    for (const point of points) {
      const folder = makeFolder();
      await saveUntil(scheme, folder, newer, point);
      const found = await loadOrNothing(scheme, folder);
      if (found !== undefined) expect(isSame(found, newer.bytes), point.label).toBe(true);
      await expectRecovery(scheme, folder, point.label);
    }
  });

  test('a save over an older checkpoint killed at any point leaves the older or the newer one', async () => {
    const before = makeFolder();
    await save(openIn(scheme, before), older);
    const points = await countCalls(scheme, copyOf(before));
    let olderCount = 0;
    for (const point of points) {
      const folder = copyOf(before);
      const isResolved = await saveUntil(scheme, folder, newer, point);
      const found = await load(openIn(scheme, folder));
      const isOlder = isSame(found, older.bytes);
      if (isOlder) olderCount += 1;
      expect(isOlder ? !isResolved : isSame(found, newer.bytes), point.label).toBe(true);
      await expectRecovery(scheme, folder, point.label);
    }
    // Both outcomes occur: the enumeration reaches both sides of the switch.
    expect(olderCount).toBeGreaterThan(points.length / 2);
    expect(olderCount).toBeLessThan(points.length);
  });

  test('a save killed while it takes back a failed flush leaves the older or the newer one', async () => {
    const before = makeFolder();
    await save(openIn(scheme, before), older);
    const flush = lastFlush(await traceOf(scheme, copyOf(before)));
    for (let distance = 1; distance < 40; distance += 1) {
      const folder = copyOf(before);
      const world = new FaultFileSystem(({ index }) => {
        if (index === flush) return { errno: 'EIO' };
        return index === flush + distance ? 'kill' : undefined;
      });
      await expect(
        save(openIn(scheme, folder, { fileSystem: world, pid: endedPid }), newer),
      ).rejects.toThrow();
      await world.release();
      const found = await load(openIn(scheme, folder));
      expect(isSame(found, older.bytes) || isSame(found, newer.bytes), `${distance} calls later`).toBe(true);
      await expectRecovery(scheme, folder, `${distance} calls later`);
      if (!world.isStopped) return;
    }
    expect.unreachable('taking back takes fewer calls');
  });

  test('a save killed while it clears up behind a killed one leaves the older or the newer one', async () => {
    const before = makeFolder();
    await save(openIn(scheme, before), older);
    const points = await countCalls(scheme, copyOf(before));
    const sample = points.filter(({ index, fault }) => fault === 'kill' && index % 6 === 0);
    for (const first of sample) {
      const wreck = copyOf(before);
      await saveUntil(scheme, wreck, newer, first);
      const intact = await load(openIn(scheme, wreck));
      const again = await countCalls(scheme, copyOf(wreck), newest);
      for (const second of again.filter(({ index, fault }) => fault === 'kill' && index % 3 === 0)) {
        const folder = copyOf(wreck);
        await saveUntil(scheme, folder, newest, second);
        const found = await load(openIn(scheme, folder));
        const label = `${first.label}, then ${second.label}`;
        expect(isSame(found, intact) || isSame(found, newest.bytes), label).toBe(true);
        await expectRecovery(scheme, folder, label);
      }
    }
  });
});

interface KillPoint {
  readonly index: number;
  readonly fault: 'kill' | 'tear';
  readonly label: string;
}

/**
 * Every point at which a save into a copy of `folder` can be killed, the one after its last call included.
 */
async function countCalls(scheme: FileScheme, folder: string, stream = newer): Promise<KillPoint[]> {
  const trace = await traceOf(scheme, folder, stream);
  const points = trace.flatMap(({ index, name, path }): KillPoint[] => {
    const label = `call ${index}, ${name} ${path.slice(folder.length)}`;
    const before = { index, fault: 'kill', label: `before ${label}` } as const;
    return name === 'write' ? [before, { index, fault: 'tear', label: `in ${label}` }] : [before];
  });
  return [...points, { index: trace.length, fault: 'kill', label: 'after the last call' }];
}

async function traceOf(
  scheme: FileScheme,
  folder: string,
  stream = newer,
): Promise<FaultFileSystem['trace']> {
  const world = new FaultFileSystem();
  await save(openIn(scheme, folder, { fileSystem: world, pid: endedPid }), stream);
  return world.trace;
}

/** Index of the flush that makes the switch durable. */
function lastFlush(trace: FaultFileSystem['trace']): number {
  const flush = trace.findLast(({ name }) => name === 'fsync-directory');
  if (flush === undefined) throw new Error('a save flushes its folder');
  return flush.index;
}

/** Saves in a process that is killed at `point`. True when the save had resolved by then. */
async function saveUntil(
  scheme: FileScheme,
  folder: string,
  stream: SampleStream,
  point: KillPoint,
): Promise<boolean> {
  const world = new FaultFileSystem(({ index }) => (index === point.index ? point.fault : undefined));
  try {
    await save(openIn(scheme, folder, { fileSystem: world, pid: endedPid }), stream);
    return true;
  } catch (error) {
    expect(error).toHaveProperty('cause', expect.any(WorldStopped));
    return false;
  } finally {
    await world.release();
  }
}

async function loadOrNothing(scheme: FileScheme, folder: string): Promise<Uint8Array | undefined> {
  try {
    return await load(openIn(scheme, folder));
  } catch (error) {
    expect(error).toHaveProperty('code', 'CHKPT_NOT_FOUND');
    return undefined;
  }
}

/**
 * A save that begins, and so clears up, and is aborted does not change what there is. The next one succeeds
 * and leaves what a save into an empty folder leaves.
 */
async function expectRecovery(scheme: FileScheme, folder: string, label: string): Promise<void> {
  const before = await loadOrNothing(scheme, folder);
  const writer = await openIn(scheme, folder).openWriter({ uuid: next.summary.uuid });
  await writer.abort();
  const after = await loadOrNothing(scheme, folder);
  expect(after === undefined, label).toBe(before === undefined);
  if (before !== undefined && after !== undefined) expect(isSame(after, before), label).toBe(true);
  await save(openIn(scheme, folder), next);
  expect(isSame(await load(openIn(scheme, folder)), next.bytes), label).toBe(true);
  expect(listTree(folder), label).toEqual(scheme === 'file' ? ['vm'] : directoryOf(next));
}

function directoryOf({ summary: { uuid } }: SampleStream): string[] {
  return ['vm/', 'vm/MANIFEST.json', `vm/${uuid}/`, `vm/${uuid}/000-start`, `vm/${uuid}/001-end`].sort();
}

function copyOf(folder: string): string {
  const copy = makeFolder();
  cpSync(folder, copy, { recursive: true });
  return copy;
}
