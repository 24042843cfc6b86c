/** Where this package lies: its code runs from the sources, from files made of several of them, and from copies inside the folder. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The nearest folder above that has the package.json of chkpt, absolute. Throws `Error` when there is none. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!isOurs(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder)
      throw new Error('chkpt was taken out of its package: there is no package.json of it');
    folder = parent;
  }
  return folder;
}

function isOurs(manifest: string): boolean {
  return existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).name === 'chkpt';
}
