/**
 * Checkpoints that no m5.cpt stands for: of two saves at the same time, both of which kept a second name of the m5.cpt before them, one
 * published over the other, and nothing but its manifest says what it left.
 */
import { gem5ManifestBytesMax } from '../../limits.ts';
import type { Gem5Folder } from './folder.ts';
import { type ManifestStore, parseManifest } from './manifest.ts';
import { isManifestName, reportNameOf } from './names.ts';

/**
 * Removes their files. Best effort; whoever publishes or cleans up later tries again.
 *
 * A save that runs has a second name of its manifest in its work folder: who gives that up calls this afterwards, so that of two such saves
 * the last one finds both over. An m5.cpt that is not, to the byte, that of a manifest here proves nothing: it may be damaged.
 */
export async function removeOrphans(folder: Gem5Folder): Promise<void> {
  try {
    const manifests = (await folder.entries()).filter(isManifestName);
    if (manifests.length < 2) return;
    const over = new Map<string, readonly ManifestStore[]>();
    for (const entry of manifests) {
      if (await isSecondNamed(folder, entry)) continue;
      const stores = await storesIn(folder, entry);
      if (stores !== undefined) over.set(entry, stores);
    }
    const [own, kept] = [await folder.named(), await folder.kept()];
    if (own === undefined || kept === undefined || ![...own].some(isManifestName)) return;
    for (const [entry, stores] of over) {
      const files = stores.map(({ file }) => file).filter((file) => file.endsWith('.pmem'));
      if (kept.has(entry) || files.some((file) => kept.has(file))) continue;
      // The manifest last: while it is there it says what is left.
      for (const file of [...files, reportNameOf(entry), entry]) await folder.removeFile(file);
    }
  } catch {
    // The next save tries again.
  }
}

async function isSecondNamed(folder: Gem5Folder, entry: string): Promise<boolean> {
  return (await folder.environment.fileSystem.status(folder.pathOf(entry))).names > 1;
}

/** `undefined`: it cannot be read, and says nothing. */
async function storesIn(folder: Gem5Folder, entry: string): Promise<readonly ManifestStore[] | undefined> {
  try {
    const bytes = await folder.read(entry, gem5ManifestBytesMax, () => new RangeError('too long'));
    return parseManifest(bytes, folder.details(entry)).stores;
  } catch {
    return undefined;
  }
}
