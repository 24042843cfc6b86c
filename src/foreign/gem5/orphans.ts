/**
 * Checkpoints that no m5.cpt stands for: of two saves at the same time, both of which kept a second name of the m5.cpt before them, one
 * published over the other, and nothing but its manifest says what it left.
 */
import { gem5ManifestBytesMax, gem5TextBytesMax } from '../../limits.ts';
import { isLeftBehind } from '../../store/environment.ts';
import type { Gem5Folder, ListedFile } from './folder.ts';
import { type Gem5Manifest, parseManifest, sha256 } from './manifest.ts';
import { isManifestName, reportNameOf, workPidIn } from './names.ts';

interface Orphan {
  readonly manifest: Gem5Manifest;
  /** Of the manifest last: while it is there it says what is left. */
  readonly files: readonly ListedFile[];
}

/**
 * Removes their files. Best effort; whoever publishes or cleans up later tries again.
 *
 * Nothing is removed while a save runs here: it has a work folder, and a second name of its manifest in it. Who gives that up calls this
 * afterwards, so that of two such saves the last one finds both over. An m5.cpt that is not, to the byte, that of a manifest here proves
 * nothing: it may be damaged. One that somebody has set aside under another name keeps what it names.
 */
export async function removeOrphans(folder: Gem5Folder): Promise<void> {
  try {
    const entries = await folder.entries();
    const manifests = entries.filter(isManifestName);
    if (manifests.length < 2 || (await isSaveRunning(folder, entries))) return;
    const over = new Map<string, Orphan>();
    for (const entry of manifests) {
      if (await isSecondNamed(folder, entry)) continue;
      const orphan = await orphanOf(folder, entry);
      if (orphan !== undefined) over.set(entry, orphan);
    }
    const [own, kept] = [await folder.named(), await folder.kept()];
    if (own === undefined || kept === undefined || ![...own].some(isManifestName)) return;
    for (const { manifest, files } of over.values()) {
      if (files.some(({ entry }) => kept.has(entry)) || (await isSetAside(folder, entries, manifest)))
        continue;
      for (const one of files) await folder.removeListed(one);
    }
  } catch {
    // The next save tries again.
  }
}

async function isSaveRunning(folder: Gem5Folder, entries: readonly string[]): Promise<boolean> {
  for (const entry of entries) {
    const pid = workPidIn(entry);
    if (pid === undefined) continue;
    if (!(await isLeftBehind(folder.environment, folder.pathOf(entry), pid))) return true;
  }
  return false;
}

async function isSecondNamed(folder: Gem5Folder, entry: string): Promise<boolean> {
  return (await folder.environment.fileSystem.status(folder.pathOf(entry))).names > 1;
}

/** `undefined`: it cannot be read, and says nothing. */
async function orphanOf(folder: Gem5Folder, entry: string): Promise<Orphan | undefined> {
  try {
    const bytes = await folder.read(entry, gem5ManifestBytesMax, () => new RangeError('too long'));
    const manifest = parseManifest(bytes, folder.details(entry));
    const stores = manifest.stores.map(({ file }) => file).filter((file) => file.endsWith('.pmem'));
    return { manifest, files: await folder.list([...stores, reportNameOf(entry), entry]) };
  } catch {
    return undefined;
  }
}

/** Whether a file here is its m5.cpt, whatever it is called. */
async function isSetAside(
  folder: Gem5Folder,
  entries: readonly string[],
  { text }: Gem5Manifest,
): Promise<boolean> {
  const { fileSystem } = folder.environment;
  for (const entry of entries) {
    if (isManifestName(entry) || entry.endsWith('.pmem')) continue;
    const status = await fileSystem.status(folder.pathOf(entry)).catch(() => undefined);
    if (status?.kind !== 'file' || status.bytes !== text.bytes) continue;
    const bytes = await folder.read(entry, gem5TextBytesMax, () => new RangeError('too long'));
    if (sha256(bytes) === text.digest) return true;
  }
  return false;
}
