/** What a host remembers of migrations, on the command line: listed, gone on with, removed. */
import { expect, test } from 'vitest';
import { SyntheticVm } from '../../src/adapters/synthetic/index.ts';
import { receiveVm } from '../../src/index.ts';
import { Journal } from '../../src/migration/journal.ts';
import type { JournalRole } from '../../src/migration/journal-text.ts';
import type { DestinationRecord, SourceRecord } from '../../src/migration/protocol/terms.ts';
import { makeFolder } from './support/folders.ts';
import { runHere } from './support/in-process.ts';
import { chkpt } from './support/run-cli.ts';

const uuid = (number: number): string => `f3b1c1de-5a3f-4e0c-9df1-00000000000${number}`;

async function leave(
  folder: string,
  number: number,
  role: JournalRole,
  ...records: (SourceRecord | DestinationRecord)[]
): Promise<void> {
  const facts = { migration: uuid(number), guest: 'guest', role };
  const journal = await Journal.open(folder, {
    ...facts,
    url: role === 'source' ? 'unix:/run/there' : undefined,
  });
  for (const record of records) await journal.append(record);
  await journal.close();
}

test('a receiver answers for what its host remembers: the guest is lost, or in doubt, each with its exit code', async () => {
  const cwd = makeFolder();
  await leave(`${cwd}/here`, 1, 'source', 'begin');
  await leave(`${cwd}/here`, 2, 'source', 'begin', 'commit');
  await leave(`${cwd}/here`, 3, 'source', 'begin', 'commit', 'released');
  await leave(`${cwd}/there`, 1, 'destination', 'prepared');
  await leave(`${cwd}/there`, 2, 'destination', 'prepared', 'own');
  await using vm = await SyntheticVm.create({ id: 'guest', memoryBytes: 2 ** 20 });
  const stop = new AbortController();
  const receive = receiveVm(vm, `unix:${cwd}/s`, { journal: `${cwd}/there`, signal: stop.signal });
  receive.catch(() => undefined);
  const resume = (number: number) =>
    runHere(['resume', uuid(number), '--journal', 'here', '--at', `unix:${cwd}/s`], cwd);
  expect(await resume(1)).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^chkpt: CHKPT_VM_LOST: .*\n$/),
  });
  // As a process: one that is in doubt ends all the same.
  expect(
    await chkpt(['resume', uuid(2), '--journal', 'here', '--at', `unix:${cwd}/s`], { cwd }),
  ).toMatchObject({ code: 4, stderr: expect.stringMatching(/^chkpt: CHKPT_IN_DOUBT: .*\n$/) });
  expect(await resume(3)).toMatchObject({ code: 0, stderr: `the guest guest moved: unix:${cwd}/s\n` });
  const { code, stdout } = await runHere(['resume', uuid(3), '--journal', 'here', '--json'], cwd);
  expect([code, JSON.parse(stdout)]).toEqual([
    0,
    {
      ...{ command: 'resume', migration: uuid(3), guest: 'guest', url: 'unix:/run/there', outcome: 'moved' },
      elapsedMs: expect.any(Number),
    },
  ]);
  expect(await resume(4)).toMatchObject({ code: 1, stderr: expect.stringContaining('see chkpt migrations') });
  stop.abort();
  await expect(receive).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
});

test('migrations are listed with what is to be done, pruned when they are over, forgotten when somebody knows better', async () => {
  const cwd = makeFolder();
  const list = async (...options: string[]) =>
    await runHere(['migrations', '--journal', 'here', ...options], cwd);
  expect(await list()).toEqual({
    ...{ code: 0, stderr: '' },
    stdout: 'MIGRATION  ROLE  RECORD  CHANGED  TASK  GUEST  DESTINATION\n',
  });
  await leave(`${cwd}/here`, 1, 'source', 'begin', 'commit');
  await leave(`${cwd}/here`, 2, 'destination', 'prepared', 'aborted');
  await leave(`${cwd}/here`, 3, 'destination', 'prepared', 'own');
  const { stdout } = await list();
  const rows = stdout.trim().split('\n').slice(1);
  expect(
    rows.map((row) => row.split(/ +/)).map(([id, role, record, , ...rest]) => [id, role, record, ...rest]),
  ).toEqual([
    [uuid(1), 'source', 'commit', 'resume', 'guest', 'unix:/run/there'],
    [uuid(2), 'destination', 'aborted', 'none', 'guest', '-'],
    [uuid(3), 'destination', 'own', 'operator', 'guest', '-'],
  ]);
  const document = JSON.parse((await list('--json')).stdout);
  expect(document.migrations[0]).toEqual({
    ...{ migration: uuid(1), guest: 'guest', role: 'source', record: 'commit', url: 'unix:/run/there' },
    ...{ task: 'resume', path: `here/${uuid(1)}.source`, changed: expect.stringMatching(/^20.*Z$/) },
  });
  expect(await list('--prune')).toMatchObject({ code: 0, stderr: 'removed 0 records\n' });
  expect(await list('--prune', '--older', '0')).toMatchObject({ code: 0, stderr: 'removed 1 record\n' });
  expect(await list('--forget', uuid(3))).toMatchObject({ code: 0 });
  expect(await list('--forget', uuid(3))).toMatchObject({ code: 1 });
  expect(JSON.parse((await list('--json')).stdout).migrations).toHaveLength(1);
});
