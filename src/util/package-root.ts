/** Where this package lies: its code runs from the sources, from files made of several of them, and from copies inside the folder. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The nearest folder above that has a package.json, absolute. Throws `Error` when there is none. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error('chkpt was taken out of its package: there is no package.json');
    folder = parent;
  }
  return folder;
}
