/** Runs command lines in the process of the test: the same code without the time that a process takes to start. */
import { vi } from 'vitest';
import { Output } from '../../../src/cli/output.ts';
import { runCommandLine } from '../../../src/cli/run.ts';

export interface CommandResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** One at a time: the working directory is that of the process. */
export async function runHere(words: readonly string[], cwd: string): Promise<CommandResult> {
  const out: Buffer[] = [];
  const err: string[] = [];
  const write = vi.spyOn(Output.prototype, 'write').mockImplementation(async (data) => {
    out.push(Buffer.from(data as Uint8Array));
  });
  const note = vi.spyOn(Output.prototype, 'note').mockImplementation((line) => {
    err.push(`${line}\n`);
  });
  const before = process.cwd();
  process.chdir(cwd);
  try {
    const code = await runCommandLine(words);
    return { code, stdout: Buffer.concat(out).toString(), stderr: err.join('') };
  } finally {
    process.chdir(before);
    write.mockRestore();
    note.mockRestore();
  }
}
