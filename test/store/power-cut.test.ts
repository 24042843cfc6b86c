/**
 * The power is cut after every call of a save, and the disk keeps whatever POSIX lets it keep. What was
 * committed is there; what was not is there whole or not at all; the older checkpoint is never lost.
 */
import { describe, expect, test } from 'vitest';
import { endedPid, type FileScheme, openIn } from './support/hosts.ts';
import { type Choose, PowerCutFileSystem } from './support/power-cut-file-system.ts';
import { isSame, load, type SampleStream, sampleStream, save } from './support/sample-stream.ts';

const older = sampleStream('older');
const newer = sampleStream('newer');
const next = sampleStream('next');
/** States looked at for each moment: two extremes, and random ones from a fixed seed. */
const statesPerMoment = 24;

describe.each<FileScheme>(['file', 'dir'])('%s:', (scheme) => {
  test('after a power cut in a first save there is nothing or the whole checkpoint', async () => {
    const disk = new PowerCutFileSystem();
    await disk.mkdir('/disk');
    disk.settle();
    const { during, after } = await cutsOfSave(scheme, disk, newer);
    const seen = new Set<string>();
    for (const left of during) seen.add(await contentOf(scheme, left));
    expect([...seen].sort()).toEqual(['newer', 'nothing']);
    for (const left of after) expect(await contentOf(scheme, left)).toBe('newer');
  }, 60_000);

  test('after a power cut in a save over an older checkpoint there is the older or the newer one', async () => {
    const disk = new PowerCutFileSystem();
    await disk.mkdir('/disk');
    await save(openIn(scheme, '/disk', { fileSystem: disk }), older);
    disk.settle();
    const { during, after } = await cutsOfSave(scheme, disk, newer);
    expect(during.length).toBeGreaterThan(200);
    const seen = new Set<string>();
    for (const left of during) seen.add(await contentOf(scheme, left));
    expect([...seen].sort()).toEqual(['newer', 'older']);
    for (const left of after) expect(await contentOf(scheme, left)).toBe('newer');
  }, 60_000);

  test('a commit that resolved is safe at once, also as the first one', async () => {
    const disk = new PowerCutFileSystem();
    await disk.mkdir('/disk');
    disk.settle();
    await save(openIn(scheme, '/disk', { fileSystem: disk }), older);
    expect(
      await contentOf(
        scheme,
        disk.cut(() => 0),
      ),
    ).toBe('older');
    await save(openIn(scheme, '/disk', { fileSystem: disk }), newer);
    expect(
      await contentOf(
        scheme,
        disk.cut(() => 0),
      ),
    ).toBe('newer');
  });
});

interface Cuts {
  /** Disks as they may be after a cut while the save ran. */
  readonly during: PowerCutFileSystem[];
  /** The same once the save had resolved. */
  readonly after: PowerCutFileSystem[];
}

async function cutsOfSave(scheme: FileScheme, disk: PowerCutFileSystem, stream: SampleStream): Promise<Cuts> {
  const during: PowerCutFileSystem[] = [];
  const choose = chooseFromSeed(20_260_101);
  disk.onChange = () => during.push(...cutsOf(disk, choose));
  await save(openIn(scheme, '/disk', { fileSystem: disk, pid: endedPid }), stream);
  disk.onChange = () => undefined;
  return { during, after: cutsOf(disk, choose) };
}

function cutsOf(disk: PowerCutFileSystem, choose: Choose): PowerCutFileSystem[] {
  const extremes: Choose[] = [() => 0, (count) => count - 1];
  const random = Array.from({ length: statesPerMoment - extremes.length }, () => choose);
  return [...extremes, ...random].map((choice) => disk.cut(choice));
}

/** Which checkpoint is on the disk; makes sure that the next save works. */
async function contentOf(scheme: FileScheme, disk: PowerCutFileSystem): Promise<string> {
  const store = openIn(scheme, '/disk', { fileSystem: disk });
  const found = await load(store).catch((error: { code: string }) => error.code);
  await save(store, next);
  expect(isSame(await load(store), next.bytes)).toBe(true);
  if (found === 'CHKPT_NOT_FOUND') return 'nothing';
  if (typeof found === 'string') return found;
  if (isSame(found, newer.bytes)) return 'newer';
  return isSame(found, older.bytes) ? 'older' : 'damaged';
}

/** Numbers that look random and are the same in every run (xorshift32). */
function chooseFromSeed(seed: number): Choose {
  let state = seed;
  return (count) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % count;
  };
}
