/**
 * Which process has a journal open: two that go on with one migration could each do what the other has ruled out.
 *
 * A file beside the journal, to which whoever comes appends a line. The first line of a process that lives holds; appends have one order,
 * so of two that come at once one sees the other. A process that was killed leaves its line, and nobody has to remove it. What another
 * host has written cannot be looked at from here, and holds: a folder of journals belongs to one host.
 */
import { randomUUID } from 'node:crypto';
import { open, readFile, unlink } from 'node:fs/promises';
import { hostname } from 'node:os';
import { CheckpointError } from '../errors/index.ts';

export class JournalLock {
  readonly #path: string;
  #isHeld = true;

  private constructor(path: string) {
    this.#path = path;
  }

  /** `path`: of the lock. Throws `CHKPT_JOURNAL_IN_USE`, and errors of the system. */
  static async take(path: string): Promise<JournalLock> {
    const own = randomUUID();
    const line = `${await ownProcess()} ${own}\n`;
    for (;;) {
      const file = await open(path, 'a', 0o600);
      try {
        await file.appendFile(line);
        const lines = await linesIn(path);
        const at = lines.findIndex((one) => one.endsWith(own));
        // Whoever held it has let go meanwhile, and with that went the file.
        if (at < 0) continue;
        if (await isHeldBy(lines.slice(0, at), lines)) {
          await file.appendFile(`gone ${own}\n`);
          throw new CheckpointError('CHKPT_JOURNAL_IN_USE', 'a process has this migration in hand', {
            details: { path },
          });
        }
        return new JournalLock(path);
      } finally {
        await file.close();
      }
    }
  }

  async release(): Promise<void> {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    await unlink(this.#path).catch(() => undefined);
  }
}

/** True while a process has it. */
export async function isLocked(path: string): Promise<boolean> {
  const lines = await linesIn(path);
  return await isHeldBy(lines, lines);
}

async function linesIn(path: string): Promise<string[]> {
  try {
    return (await readFile(path, 'latin1')).split('\n').filter(Boolean);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

async function isHeldBy(claims: readonly string[], all: readonly string[]): Promise<boolean> {
  for (const claim of claims) {
    const [host, boot, pid, start, name, none] = claim.split(' ');
    if (name === undefined || none !== undefined || all.includes(`gone ${name}`)) continue;
    if (host !== ownHost()) return true;
    if (boot !== (await ownBoot())) continue;
    if (start === (await startOf(Number(pid)))) return true;
  }
  return false;
}

async function ownProcess(): Promise<string> {
  return [ownHost(), await ownBoot(), process.pid, await startOf(process.pid)].join(' ');
}

function ownHost(): string {
  return encodeURIComponent(hostname());
}

async function ownBoot(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'latin1')).trim();
}

/** When a process was started, in ticks since the host was: a number is given again, a number and a moment are not. */
async function startOf(pid: number): Promise<string | undefined> {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'latin1');
    // The name of the program, in parentheses, may have anything in it.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const [state] = fields;
    return state === 'Z' || state === 'X' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}
