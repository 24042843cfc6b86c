/**
 * Room for a whole guest memory that is not memory: files without a name, read and written by native threads, never mapped. Holes stay
 * holes, and the kernel may write the pages back and drop them.
 */
import { type FileHandle, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MemoryRegion } from '../context/memory-frames.ts';
import { fromSystemError } from '../errors/index.ts';
import { GuestMemory } from '../memory/index.ts';
import { pidText } from '../store/temporary-names.ts';

const folderPattern = new RegExp(`^\\.chkpt-scratch-(${pidText})-[A-Za-z0-9]{6}$`);

/** Makes the folder in which such files have names for a moment. Its name has the process: one killed in that moment leaves it. */
export async function makeScratchFolder(parent: string): Promise<string> {
  return await mkdtemp(join(parent, `.chkpt-scratch-${process.pid}-`));
}

/** Of the name of such a folder: the process that made it. */
export function scratchPidIn(entry: string): number | undefined {
  const pid = folderPattern.exec(entry)?.[1];
  return pid === undefined ? undefined : Number(pid);
}

/** Makes zeroed memory of these regions; `close()` gives its space back, and so does the end of the process. Throws as files do. */
export async function openScratch(
  regions: readonly MemoryRegion[],
  folder: string | undefined,
): Promise<GuestMemory> {
  const parent = folder ?? tmpdir();
  const handles: FileHandle[] = [];
  try {
    const home = await makeScratchFolder(parent);
    try {
      for (const index of regions.keys()) handles.push(await open(join(home, `${index}`), 'wx+', 0o600));
    } finally {
      await rm(home, { recursive: true, force: true });
    }
    const files = regions.map(({ base, bytes }, index) => ({ file: handles[index]?.fd ?? -1, base, bytes }));
    return await GuestMemory.openFiles(files, { fresh: true });
  } catch (error) {
    throw fromSystemError(error, `no room for memory in ${parent}`);
  } finally {
    for (const handle of handles) await handle.close();
  }
}
