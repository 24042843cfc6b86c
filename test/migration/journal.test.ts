/** Journals of migrations, also those that a host has left when it lost power. */
import { appendFile, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Journal } from '../../src/migration/journal.ts';
import { folderWitness } from '../../src/migration/witness.ts';
import { makeFolder } from '../store/support/folders.ts';

const facts = {
  migration: 'f3b1c1de-5a3f-4e0c-9df1-6f3f5c0e8a11',
  guest: 'a guest, and %',
  role: 'source',
} as const;

it('the last whole record counts, wherever the file ends', async () => {
  const folder = join(makeFolder(), 'not', 'there', 'yet');
  const journal = await Journal.open(folder, facts);
  const ends: [number, string | undefined][] = [];
  for (const record of [undefined, 'begin', 'commit', 'reclaim'] as const) {
    if (record !== undefined) await journal.append(record);
    ends.push([(await readFile(journal.path)).length, record]);
  }
  await journal.close();
  const whole = await readFile(journal.path);
  const [[head = 0] = []] = ends;
  for (let length = head; length <= whole.length; length += 1) {
    await writeFile(journal.path, whole);
    await truncate(journal.path, length);
    const expected = ends.findLast(([end]) => end <= length)?.[1];
    for (let time = 0; time < 2; time += 1) {
      const again = await Journal.open(folder, facts);
      expect([length, again.last]).toEqual([length, expected]);
      await again.close();
    }
  }
  // A head that was cut short is no journal yet.
  await writeFile(journal.path, whole.subarray(0, 10));
  const begun = await Journal.open(folder, facts);
  await begun.append('begin');
  await begun.close();
  expect((await Journal.open(folder, facts)).last).toBe('begin');
});

it('a file that is no journal of this migration is refused', async () => {
  const folder = makeFolder();
  const journal = await Journal.open(folder, facts);
  await journal.close();
  await appendFile(journal.path, 'commited\n');
  await expect(Journal.open(folder, facts)).rejects.toMatchObject({ code: 'CHKPT_FORMAT' });
  await writeFile(journal.path, 'something else\n');
  await expect(Journal.open(folder, facts)).rejects.toMatchObject({ code: 'CHKPT_FORMAT' });
});

it('of two that claim a witness at once one wins, for ever', async () => {
  const folder = makeFolder();
  for (let round = 0; round < 20; round += 1) {
    const witness = folderWitness(folder, `migration-${round}`);
    const answers = await Promise.all([witness.claim('source'), witness.claim('destination')]);
    expect([...answers].sort()).toEqual(['lost', 'won']);
    expect(await Promise.all([witness.claim('source'), witness.claim('destination')])).toEqual(answers);
  }
  await writeFile(join(folder, 'owner-empty'), '');
  expect(await folderWitness(folder, 'empty').claim('source')).toBe('unknown');
});
