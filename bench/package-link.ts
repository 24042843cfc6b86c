/**
 * Makes the compiled benchmark find the package it came from: `src/` looks for the addon and for package.json two folders up,
 * which for `out/bench/src/native` is `out/bench`. Nothing to do when it runs from the sources.
 */
import { existsSync, symlinkSync, unlinkSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const linked = ['package.json', 'build', 'prebuilds'];

/** The folder of the package: the nearest one above with sources of the addon. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'binding.gyp'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error('the benchmark runs inside a checkout of chkpt');
    folder = parent;
  }
  return folder;
}

/** Links what `src/` looks for into the folder of the compiled tree. */
export function linkPackage(): void {
  const root = packageRoot();
  const tree = dirname(dirname(fileURLToPath(import.meta.url)));
  if (tree === root) return;
  for (const name of linked) {
    const target = join(root, name);
    const link = join(tree, name);
    if (existsSync(link) || !existsSync(target)) continue;
    // A link that leads nowhere does not exist for existsSync but is in the way.
    try {
      unlinkSync(link);
    } catch {}
    symlinkSync(relative(tree, target), link);
  }
}
