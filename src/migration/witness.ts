/**
 * Who owns the guest when the link does not come back: a place that both hosts reach, where a name can be created once.
 */
import { mkdir, open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ClaimAnswer } from './protocol/terms.ts';

/** At most one of the two ever wins; who has won wins again. */
export interface Witness {
  claim(side: 'source' | 'destination'): Promise<ClaimAnswer>;
}

/**
 * A folder that both hosts have mounted, on a file system with exclusive create. `migration`: its UUID.
 */
export function folderWitness(folder: string, migration: string): Witness {
  const path = join(folder, `owner-${migration}`);
  return {
    async claim(side) {
      try {
        await mkdir(folder, { recursive: true });
        const file = await open(path, 'wx', 0o600);
        try {
          await file.writeFile(`${side}\n`);
          await file.sync();
        } finally {
          await file.close();
        }
        const parent = await open(folder, 'r');
        await parent.sync().finally(() => parent.close());
        return 'won';
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') return 'unknown';
      }
      try {
        const owner = await readFile(path, 'utf8');
        // Not written yet, or never: nobody can tell.
        if (owner !== 'source\n' && owner !== 'destination\n') return 'unknown';
        return owner === `${side}\n` ? 'won' : 'lost';
      } catch {
        return 'unknown';
      }
    },
  };
}
