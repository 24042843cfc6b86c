/**
 * Who owns the guest when the link does not come back: a place that both hosts reach, where a name can be created once.
 */
import { randomUUID } from 'node:crypto';
import { link, mkdir, open, readFile, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { syncFolder } from './journal.ts';
import type { ClaimAnswer } from './protocol/terms.ts';

/** At most one of the two ever wins; who has won wins again. */
export interface Witness {
  claim(side: 'source' | 'destination'): Promise<ClaimAnswer>;
}

/**
 * A folder that both hosts have mounted, on a file system whose hard links appear once and whole. `migration`: its UUID.
 */
export function folderWitness(folder: string, migration: string): Witness {
  const path = join(folder, `owner-${migration}`);
  return {
    async claim(side) {
      try {
        await mkdir(folder, { recursive: true });
        await createOnce(folder, path, `${side}\n`);
        const owner = await readFile(path, 'utf8');
        if (owner !== 'source\n' && owner !== 'destination\n') return 'unknown';
        if (owner !== `${side}\n`) return 'lost';
        // Also when an earlier try has created it: its flush may have failed.
        await syncFolder(folder);
        return 'won';
      } catch {
        return 'unknown';
      }
    },
  };
}

/** Appears with its content, flushed; or somebody else's is there. */
async function createOnce(folder: string, path: string, content: string): Promise<void> {
  const temporary = join(folder, `claim-${randomUUID()}`);
  const file = await open(temporary, 'wx', 0o600);
  try {
    await file.writeFile(content);
    await file.sync();
    await link(temporary, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
  } finally {
    await file.close();
    await unlink(temporary).catch(() => undefined);
  }
}
