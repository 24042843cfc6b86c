/** Journals after their process: who may open them, what they ask for, when they go; and what cannot be gone on with. */
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { readFile, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it, vi } from 'vitest';
import {
  forgetMigration,
  listMigrations,
  pruneMigrations,
  receiveVm,
  resumeMigration,
  sendVm,
} from '../../src/index.ts';
import { Journal } from '../../src/migration/journal.ts';
import { JournalLock } from '../../src/migration/journal-lock.ts';
import { isMigrationId, type JournalRole } from '../../src/migration/journal-text.ts';
import type { DestinationRecord, SourceRecord } from '../../src/migration/protocol/terms.ts';
import { makeFolder } from '../store/support/folders.ts';
import { makePair, migrate } from './support.ts';

const uuid = (number: number): string => `f3b1c1de-5a3f-4e0c-9df1-${number.toString(16).padStart(12, '0')}`;

async function leave(
  folder: string,
  migration: string,
  role: JournalRole,
  words: readonly (SourceRecord | DestinationRecord | 'told' | 'resumed')[],
): Promise<string> {
  const journal = await Journal.open(folder, { migration, guest: 'a guest', role, url: 'unix:/run/there' });
  for (const word of words) {
    if (word === 'told' || word === 'resumed') await journal.note(word);
    else await journal.append(word);
  }
  await journal.close();
  return journal.path;
}

it('one process at a time has a journal, and one that was killed has it no more', async () => {
  const folder = makeFolder();
  const facts = { migration: uuid(1), guest: 'g', role: 'source' } as const;
  const inUse = { code: 'CHKPT_JOURNAL_IN_USE' };
  const first = await Journal.open(folder, facts);
  await expect(Journal.open(folder, facts)).rejects.toMatchObject(inUse);
  await expect(resumeMigration(uuid(1), { journal: folder })).rejects.toMatchObject(inUse);
  await expect(forgetMigration(uuid(1), folder)).rejects.toMatchObject(inUse);
  expect((await listMigrations(folder)).map(({ task }) => task)).toEqual(['wait']);
  await first.close();
  // Of many that come at once one has it.
  const lock = join(folder, 'lock');
  const claims = await Promise.allSettled(Array.from({ length: 20 }, () => JournalLock.take(lock)));
  const held = claims.flatMap((claim) => (claim.status === 'fulfilled' ? [claim.value] : []));
  expect(held).toHaveLength(1);
  await held[0]?.release();
  expect(readdirSync(folder)).toEqual([`${uuid(1)}.source`]);
  // A process of this host, as long as it lives.
  const other = spawn('sleep', ['60']);
  const stat = async (): Promise<string> =>
    (await readFile(`/proc/${other.pid}/stat`, 'latin1')).split(') ')[1]?.split(' ')[19] ?? '';
  const own = await JournalLock.take(lock);
  const [host, boot] = (await readFile(lock, 'latin1')).split(' ');
  await own.release();
  const line = (start: string, where = host, when = boot): string =>
    `${where} ${when} ${other.pid} ${start} x\n`;
  await writeFile(lock, line(await stat()));
  await expect(JournalLock.take(lock)).rejects.toMatchObject(inUse);
  // Its number was given to another process; the host was started anew; the line is none.
  for (const stale of [line('1'), line(await stat(), host, 'before'), 'torn\0\0', '']) {
    await writeFile(lock, stale);
    await (await JournalLock.take(lock)).release();
  }
  // What another host does cannot be seen.
  await writeFile(lock, line('1', 'elsewhere'));
  await expect(JournalLock.take(lock)).rejects.toMatchObject(inUse);
  await writeFile(lock, line(await stat()));
  const ended = new Promise((resolve) => other.once('exit', resolve));
  other.kill('SIGKILL');
  await ended;
  await (await JournalLock.take(lock)).release();
});

it('a journal says what is to be done, and goes when it is no longer needed', async () => {
  const folder = makeFolder();
  const cases = [
    ['source', ['begin'], 'resume'],
    ['source', ['begin', 'abort'], 'resume'],
    ['source', ['begin', 'commit'], 'resume'],
    ['source', ['begin', 'commit', 'reclaim'], 'resume'],
    ['source', ['begin', 'resumed', 'reclaim'], 'none'],
    ['source', ['begin', 'commit', 'released'], 'none'],
    ['source', [], 'none'],
    ['destination', [], 'none'],
    ['destination', ['prepared'], 'receive'],
    ['destination', ['prepared', 'aborted'], 'none'],
    ['destination', ['prepared', 'own'], 'operator'],
    ['destination', ['prepared', 'own', 'told'], 'none'],
  ] as const;
  for (const [number, [role, words]] of cases.entries()) {
    const path = await leave(folder, uuid(number), role, words);
    await utimes(path, 1000 + number, 1000 + number);
  }
  for (const name of ['notes.txt', `${uuid(99)}.sources`, `${uuid(98)}.source`]) {
    await writeFile(join(folder, name), 'x\n');
  }
  const listed = await listMigrations(folder);
  expect(listed.map(({ role, last, task }) => [role, last, task])).toEqual(
    cases.map(([role, words, task]) => [
      role,
      words.findLast((word) => word !== 'told' && word !== 'resumed'),
      task,
    ]),
  );
  expect(listed[0]).toMatchObject({ migration: uuid(0), guest: 'a guest', url: 'unix:/run/there' });
  await utimes(join(folder, `${uuid(5)}.source`), new Date(), new Date());
  const gone = cases.flatMap(([, , task], number) => (task === 'none' ? [uuid(number)] : []));
  const old = gone.filter((one) => one !== uuid(5));
  expect((await pruneMigrations({ journal: folder })).map(({ migration }) => migration)).toEqual(old);
  const rest = await pruneMigrations({ journal: folder, olderThanMs: 0 });
  expect(rest.map(({ migration }) => migration)).toEqual([uuid(5)]);
  expect((await listMigrations(folder)).every(({ task }) => task !== 'none')).toBe(true);
  // What an operator knows better.
  await forgetMigration(uuid(10), folder);
  await expect(forgetMigration(uuid(10), folder)).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
  expect((await listMigrations(folder)).map(({ migration }) => migration)).not.toContain(uuid(10));
  expect(await listMigrations(join(folder, 'nowhere'))).toEqual([]);
});

it('journals of older versions are read, those of newer ones are left alone', async () => {
  const folder = makeFolder();
  const head = `chkpt-migration-1 source ${uuid(1)} a%20guest`;
  const path = join(folder, `${uuid(1)}.source`);
  await writeFile(path, `${head}\nbegin\ncommit\n`);
  expect(await listMigrations(folder)).toMatchObject([{ last: 'commit', url: undefined, guest: 'a guest' }]);
  await expect(resumeMigration(uuid(1), { journal: folder })).rejects.toMatchObject({
    code: 'CHKPT_USAGE',
    message: expect.stringContaining('does not say where the destination is'),
  });
  for (const newer of [head.replace('-1 ', '-3 '), `${head.replace('-1 ', '-2 ')} mode=x`]) {
    await writeFile(path, `${newer}\n`);
    await expect(resumeMigration(uuid(1), { journal: folder })).rejects.toMatchObject({
      code: 'CHKPT_VERSION',
    });
  }
  for (const wrong of [`${head} %`, head.replace('a%20', '%ff'), head.replace('source', 'witness'), 'x']) {
    await writeFile(path, `${wrong}\n`);
    await expect(resumeMigration(uuid(1), { journal: folder })).rejects.toMatchObject({
      code: 'CHKPT_FORMAT',
    });
  }
  expect(isMigrationId(`../${uuid(1)}`)).toBe(false);
});

it('what cannot be gone on with says why, and what is over says how it ended', async () => {
  const folder = makeFolder();
  const resume = (migration: string, options = {}) =>
    resumeMigration(migration, { journal: folder, ...options });
  await expect(resume(uuid(1))).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
  await expect(resume('../x')).rejects.toThrow(TypeError);
  await leave(folder, uuid(1), 'destination', ['prepared']);
  await expect(resume(uuid(1))).rejects.toMatchObject({ code: 'CHKPT_USAGE' });
  await leave(folder, uuid(2), 'source', ['begin', 'commit', 'released']);
  expect(await resume(uuid(2))).toMatchObject({ outcome: 'moved', guest: 'a guest' });
  await leave(folder, uuid(3), 'source', ['begin', 'resumed', 'reclaim']);
  expect(await resume(uuid(3))).toMatchObject({ outcome: 'lost' });
  await leave(folder, uuid(4), 'source', []);
  expect(await resume(uuid(4))).toMatchObject({ outcome: 'stayed' });
  await leave(folder, uuid(5), 'source', ['begin', 'commit']);
  await expect(resume(uuid(5), { url: 'tcp://192.0.2.1:7000' })).rejects.toMatchObject({
    code: 'CHKPT_INSECURE',
  });
  await expect(resume(uuid(5), { url: 'file:x' })).rejects.toThrow(TypeError);
  const stop = AbortSignal.timeout(100);
  await expect(resume(uuid(5), { signal: stop })).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
  const doubt = await resume(uuid(5), { inDoubtMs: 50 }).catch((error: unknown) => error);
  expect(doubt).toMatchObject({ code: 'CHKPT_IN_DOUBT', cause: { code: 'CHKPT_LINK_LOST' } });
  await expect(
    (doubt as { forceLocal(word: object): Promise<unknown> }).forceLocal({ fenced: true }),
  ).rejects.toMatchObject({ code: 'CHKPT_UNSUPPORTED' });
  // It goes on asking, and has the journal.
  await expect(resume(uuid(5))).rejects.toMatchObject({ code: 'CHKPT_JOURNAL_IN_USE' });
});

it('a migration that came to nothing before it was promised leaves no journal at either end', async () => {
  await using pair = await makePair({ memoryBytes: 8 * 2 ** 20, pagesPerSecond: 20_000, guestLike: true });
  await pair.source.resume();
  const stop = new AbortController();
  const { send, receive } = await migrate(pair, {
    send: {
      signal: stop.signal,
      bandwidth: 4 * 2 ** 20,
      onProgress: ({ phase }) => phase === 'memory' && stop.abort(),
    },
    receive: { lingerMs: 0 },
  });
  await expect(send).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
  await expect(receive).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
  for (const side of ['source', 'destination']) {
    await expect.poll(() => readdirSync(join(pair.folder, side)), { timeout: 40_000 }).toEqual([]);
  }
});

it('a question about a migration that is not here does not end a receiver that waits for another', async () => {
  await using pair = await makePair({ memoryBytes: 2 ** 20 });
  const address = `unix:${pair.folder}/asked`;
  const journal = join(pair.folder, 'asked-journals');
  const receive = receiveVm(pair.destination, address, { journal });
  receive.catch(() => undefined);
  const folder = join(pair.folder, 'sources');
  await leave(folder, uuid(1), 'source', ['begin', 'commit']);
  await leave(folder, uuid(2), 'source', ['begin']);
  for (const number of [1, 2]) {
    expect(await resumeMigration(uuid(number), { journal: folder, url: address })).toMatchObject({
      outcome: 'lost',
    });
  }
  // It has said for ever that it has nothing.
  expect((await listMigrations(journal)).map(({ last, task }) => [last, task])).toEqual([
    ['aborted', 'wait'],
    ['aborted', 'wait'],
  ]);
  await pair.source.resume();
  await sendVm(pair.source, address, { journal: folder });
  await receive;
  expect([pair.source.running, pair.destination.running]).toEqual([false, true]);
});

it('a source that has given up hears so from a destination that gave up before, or has nothing, and its journal goes', async () => {
  await using pair = await makePair({ memoryBytes: 2 ** 20 });
  const address = `unix:${pair.folder}/told`;
  const [journal, folder] = [join(pair.folder, 'told-journals'), join(pair.folder, 'sources')];
  await leave(journal, uuid(1), 'destination', ['prepared', 'aborted']);
  const stop = new AbortController();
  const receive = receiveVm(pair.destination, address, { journal, signal: stop.signal });
  receive.catch(() => undefined);
  for (const number of [1, 2]) {
    await leave(folder, uuid(number), 'source', ['begin', 'abort']);
    const options = { journal: folder, url: address, inDoubtMs: 3000 };
    expect(await resumeMigration(uuid(number), options)).toMatchObject({ outcome: 'stayed' });
    expect(await listMigrations(folder)).toEqual([]);
  }
  stop.abort();
  await expect(receive).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
});

it('a destination that is told to cancel while it writes that it is prepared does not leave that promise behind', async () => {
  await using pair = await makePair({ memoryBytes: 2 ** 20 });
  const stop = new AbortController();
  const append = Journal.prototype.append;
  using spy = vi.spyOn(Journal.prototype, 'append').mockImplementation(async function (
    this: Journal,
    record,
  ) {
    if (record === 'prepared') {
      stop.abort();
      await sleep(300);
    }
    await append.call(this, record);
  });
  await pair.source.resume();
  const { send, receive } = await migrate(pair, { send: { signal: stop.signal } });
  await expect(send).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
  await expect(receive).rejects.toThrow();
  expect(spy.mock.calls.map(([record]) => record)).toContain('prepared');
  expect((await listMigrations(join(pair.folder, 'destination'))).map(({ last }) => last)).toEqual([
    'aborted',
  ]);
});
