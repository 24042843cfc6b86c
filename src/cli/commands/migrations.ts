/** `chkpt migrations`: the journals of this host. */
import { forgetMigration, listMigrations, type MigrationFacts, pruneMigrations } from '../../index.ts';
import { journalFolder } from '../../migration/journal.ts';
import type { Invocation } from '../invocation.ts';
import { migrationIdOf } from '../migration-argument.ts';
import { printable } from '../printable.ts';
import { textTable } from '../text-table.ts';
import { countOf } from '../units.ts';
import { usageError } from '../usage-error.ts';

const hourMs = 3_600_000;

export async function run(invocation: Invocation): Promise<void> {
  const { line, common, output } = invocation;
  const journal = line.last('journal') ?? journalFolder();
  const forget = line.last('forget');
  const olderThanMs = hoursOf(line.last('older')) * hourMs;
  if (forget !== undefined && line.has('prune')) throw usageError('--prune and --forget exclude each other');
  if (line.has('older') && !line.has('prune')) throw usageError('--older goes with --prune');
  const document = { command: 'migrations', journal };
  if (forget !== undefined) {
    const migration = migrationIdOf(forget);
    await forgetMigration(migration, journal);
    if (common.json) await output.json({ ...document, forgotten: migration });
    else if (!common.quiet) output.note(`forgot the migration ${migration}`);
  } else if (line.has('prune')) {
    const removed = await pruneMigrations({ journal, olderThanMs });
    if (common.json) await output.json({ ...document, removed: removed.map(documentOf) });
    else if (!common.quiet) output.note(`removed ${countOf(removed.length, 'record')}`);
  } else {
    const migrations = await listMigrations(journal);
    if (common.json) await output.json({ ...document, migrations: migrations.map(documentOf) });
    else await output.write(tableOf(migrations));
  }
}

function hoursOf(text: string | undefined): number {
  if (text === undefined) return 24;
  if (/^\d{1,6}$/.test(text)) return Number(text);
  throw usageError(`--older ${text}: a number of hours is expected`);
}

function documentOf({ last, url, changed, ...facts }: MigrationFacts): object {
  return { ...facts, record: last ?? null, url: url ?? null, changed: changed.toISOString() };
}

function tableOf(migrations: readonly MigrationFacts[]): string {
  const titles = ['MIGRATION', 'ROLE', 'RECORD', 'CHANGED', 'TASK', 'GUEST', 'DESTINATION'];
  const rows = migrations.map(({ migration, role, last, changed, task, guest, url }) => [
    ...[migration, role, last ?? '-', changed.toISOString(), task, printable(guest)],
    url === undefined ? '-' : printable(url),
  ]);
  return textTable(
    titles.map((title) => ({ title })),
    rows,
  );
}
