/** Claims in files: what a fault or somebody else leaves of one. The promises of all stores are in the conformance suite. */
import { readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { FaultFileSystem } from './support/fault-file-system.ts';
import { makeFolder } from './support/folders.ts';
import { type FileScheme, openIn } from './support/hosts.ts';
import { sampleStream, save } from './support/sample-stream.ts';

const older = sampleStream('older');
const { uuid } = older.summary;
const claim = { uuid, by: 'machine vm', timeMs: 1_700_000_000_000 };

describe.each<FileScheme>(['file', 'dir'])('%s:', (scheme) => {
  const place = async (): Promise<{ folder: string; marker: string }> => {
    const folder = makeFolder();
    await save(openIn(scheme, folder), older);
    return {
      folder,
      marker: scheme === 'file' ? `${folder}/vm.${uuid}.continued` : `${folder}/vm/${uuid}.continued`,
    };
  };

  test('a claim whose file call fails is not taken, and can be taken afterwards', async () => {
    const counting = new FaultFileSystem();
    await openIn(scheme, (await place()).folder, { fileSystem: counting }).claims?.take(claim);
    expect(counting.trace.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['create', 'write', 'fsync', 'close', 'fsync-directory']),
    );
    for (const { index } of counting.trace) {
      const { folder } = await place();
      const world = new FaultFileSystem((operation) =>
        operation.index === index ? { errno: 'EIO' } : undefined,
      );
      const taking = openIn(scheme, folder, { fileSystem: world }).claims?.take(claim);
      await expect(taking).rejects.toMatchObject({ kind: 'io', details: { path: expect.any(String) } });
      const { claims } = openIn(scheme, folder);
      expect(await claims?.find(uuid)).toBeUndefined();
      expect(await claims?.take(claim)).toBeUndefined();
    }
  });

  test('a process that is killed at any call leaves a claim or none, and a save removes what it left', async () => {
    for (let index = 0; ; index += 1) {
      const { folder, marker } = await place();
      const world = new FaultFileSystem((operation) => (operation.index === index ? 'tear' : undefined));
      const isTaken = await openIn(scheme, folder, { fileSystem: world })
        .claims?.take(claim)
        .then(
          () => true,
          () => false,
        );
      await world.release();
      const found = await openIn(scheme, folder).claims?.find(uuid);
      if (isTaken) {
        expect(found).toEqual(claim);
        break;
      }
      // Cut short, it is a claim of somebody unknown: nobody may take it for none.
      if (found !== undefined && found.timeMs === 0) expect(found.by).toBe('somebody unknown');
      expect(await openIn(scheme, folder).claims?.take(claim)).toEqual(found);
      await save(openIn(scheme, folder), sampleStream('newer'));
      expect(readdirSync(marker.slice(0, marker.lastIndexOf('/')))).not.toContain(`vm.${uuid}.continued`);
    }
  });

  test.each([
    ['empty', ''],
    ['no JSON', 'who?'],
    ['without a name', '{"by":7,"time":"2026-01-01T00:00:00.000Z"}'],
    ['without a time', '{"by":"vm","time":"soon"}'],
    ['too long', `{"by":"${'x'.repeat(5000)}","time":"2026-01-01T00:00:00.000Z"}`],
  ])('a claim whose text is %s is one of somebody unknown', async (_, text) => {
    const { folder, marker } = await place();
    writeFileSync(marker, text);
    const { claims } = openIn(scheme, folder);
    expect(await claims?.find(uuid)).toEqual({ uuid, by: 'somebody unknown', timeMs: 0 });
    expect(await claims?.take(claim)).toMatchObject({ by: 'somebody unknown' });
  });

  test('a symbolic link is not followed: the claim can neither be read nor taken', async () => {
    const { folder, marker } = await place();
    symlinkSync('/etc/hostname', marker);
    const { claims } = openIn(scheme, folder);
    await expect(claims?.find(uuid)).rejects.toMatchObject({ code: 'CHKPT_PERMISSION' });
    await expect(claims?.take(claim)).rejects.toMatchObject({ code: 'CHKPT_PERMISSION' });
  });
});
