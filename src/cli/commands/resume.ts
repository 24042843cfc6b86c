/** `chkpt resume`: what became of a migration whose `chkpt send` was ended. */
import { CheckpointError, listMigrations, type ResumeReport, resumeMigration } from '../../index.ts';
import type { Invocation } from '../invocation.ts';
import { isLink, securityOf } from '../link-argument.ts';
import { migrationIdOf } from '../migration-argument.ts';
import { printable } from '../printable.ts';
import { usageError } from '../usage-error.ts';

export async function run(invocation: Invocation): Promise<void> {
  const { common, output } = invocation;
  const report = await resume(invocation);
  const { guest, url, outcome } = report;
  if (outcome === 'lost') {
    throw new CheckpointError('CHKPT_VM_LOST', 'the guest ended with the process that was sending it', {
      details: { store: url },
    });
  }
  if (common.json) await output.json({ command: 'resume', ...report, url: url ?? null });
  else if (!common.quiet)
    output.note(summaryOf(outcome, printable(guest), printable(url ?? 'its destination')));
}

async function resume({ line, signal }: Invocation): Promise<ResumeReport> {
  const migration = migrationIdOf(line.operand(0));
  const [journal, at] = [line.last('journal'), line.last('at')];
  if (at !== undefined && !isLink(at)) {
    throw usageError(`--at ${at}: tcp://HOST:PORT, tls://HOST:PORT or unix:PATH is expected`);
  }
  const known = (await listMigrations(journal)).find(
    (one) => one.migration === migration && one.role === 'source',
  );
  const url = at ?? known?.url;
  const security = url === undefined ? {} : securityOf(url, line, 'connect');
  // In doubt it would go on asking; whoever wants that runs it again.
  const enough = new AbortController();
  try {
    return await resumeMigration(migration, {
      ...{ ...security, journal, url: at },
      signal: AbortSignal.any([signal, enough.signal]),
    });
  } finally {
    enough.abort();
  }
}

function summaryOf(outcome: ResumeReport['outcome'], guest: string, where: string): string {
  if (outcome === 'moved') return `the guest ${guest} moved: ${where}`;
  return `the migration came to nothing: the guest ${guest} stayed with the process that was sending it`;
}
