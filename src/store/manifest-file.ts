/** Reads MANIFEST.json of a `dir:` checkpoint from its folder. */
import { manifestBytesMax } from '../limits.ts';
import type { FileSystem } from './file-system.ts';
import { type Manifest, parseManifest } from './manifest.ts';
import { manifestError } from './manifest-rules.ts';
import { openForReading, readWhole } from './readable-file.ts';

/** Name of the manifest in the folder of the checkpoint. */
export const manifestName = 'MANIFEST.json';

/**
 * Reads and checks the manifest at `path`. At most `manifestBytesMax` bytes are read, whatever the file
 * claims. Throws `CHKPT_NOT_FOUND`, `CHKPT_MANIFEST`, `CHKPT_PERMISSION`, …
 */
export async function readManifest(fileSystem: FileSystem, path: string, store: string): Promise<Manifest> {
  const details = { store, path };
  const opened = await openForReading(fileSystem, path, store);
  try {
    if (opened.bytes > manifestBytesMax) throw manifestError('it is too long', details);
    return parseManifest(await readWhole(opened, details), details);
  } finally {
    await opened.file.close().catch(() => undefined);
  }
}
