/** The STORE of a command line. */
import { statSync } from 'node:fs';
import { encrypted, type KeySource, openStore, type Store } from '../store/index.ts';
import { filePath, parseStoreUrl } from '../store/url.ts';
import { keysOf } from './key-argument.ts';
import type { ParsedLine } from './parse-line.ts';
import { usageError } from './usage-error.ts';

/** Encrypted with a key. Opens nothing yet. Throws `CHKPT_STORE_UNKNOWN`, `CHKPT_STORE_URL`, `CHKPT_USAGE`. */
export function storeOf(url: string, key?: KeySource): Store {
  const store = openStore(url);
  if (parseStoreUrl(url).scheme === 'mem') {
    throw usageError(`${url}: a mem: checkpoint ends with its process; use file: or dir:`);
  }
  return key === undefined ? store : encrypted(store, { key });
}

/** Throws `CHKPT_USAGE` when a checkpoint and a document would share standard output. */
export function refuseSharedOutput(store: Store, { json }: { readonly json: boolean }): void {
  const { scheme, rest } = parseStoreUrl(store.url);
  if (json && scheme === 'fd' && (rest === '-' || rest === '1')) {
    throw usageError('--json and the checkpoint cannot both go to standard output');
  }
}

/** The stores of `--parent`, in the order given. Throws as `storeOf`. */
export function parentsOf(line: ParsedLine): Store[] {
  const key = keysOf(line);
  return line.all('parent').map((url) => storeOf(url, key));
}

/** Throws `CHKPT_USAGE` when one of `paths` is the file of the store: one of the two would be lost. */
export function refuseStoreFile(url: string, paths: readonly string[]): void {
  const { scheme, rest } = parseStoreUrl(url);
  if (scheme !== 'file') return;
  const store = identityOf(filePath(rest, url));
  if (store === undefined) return;
  const same = paths.find((path) => identityOf(path) === store);
  if (same !== undefined) throw usageError(`${same} is the checkpoint itself (store ${url})`);
}

function identityOf(path: string): string | undefined {
  try {
    const status = statSync(path, { bigint: true, throwIfNoEntry: false });
    return status === undefined ? undefined : `${status.dev} ${status.ino}`;
  } catch {
    // Whoever opens it will say why it cannot be looked at.
    return undefined;
  }
}
