/** Names in a pool: packs, and the file that says that a folder is one. */
import { uuidText } from './temporary-names.ts';

/** Marks a folder as a pool; `chkpt gc` looks for packs that nobody uses in such folders only. */
export const poolMarker = 'CHKPT-POOL';

/** Name of the pool of `dir+pool:`, beside the checkpoint. */
export const defaultPoolName = 'chkpt-pool';

const packPattern = new RegExp(`^${uuidText.replaceAll('A-F', '')}\\.pack$`);

/** A pack has a name of its own, not that of a checkpoint: a save makes several, and others keep them. */
export function packNameOf(uuid: string): string {
  return `${uuid}.pack`;
}

/** True for a plain base name of a pack. */
export function isPackName(text: unknown): text is string {
  return typeof text === 'string' && packPattern.test(text);
}
