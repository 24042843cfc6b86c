/**
 * Compiles src/ and puts its many modules into few files, laid out as in the package: an entry for each export and for the command, the
 * rest in lib/. Node needs longer to find and link hundreds of modules than to run them.
 *
 *     node scripts/build-ts.mjs             dist/, with declarations, types checked
 *     node scripts/build-ts.mjs FOLDER      the same without declarations and checks
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';

const root = fileURLToPath(new URL('..', import.meta.url));
const [given] = process.argv.slice(2);
const target = given ?? join(root, 'dist');
const { exports: exported, bin } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const entries = [...Object.values(exported).map((entry) => entry.default), ...Object.values(bin)]
  .filter((path) => path !== undefined)
  .map((path) => path.replace(/^(\.\/)?dist\//, '').replace(/\.js$/, ''));

if (given === undefined) rmSync(target, { recursive: true, force: true });
const scratch = mkdtempSync(join(tmpdir(), 'chkpt-build-'));
// Its name is in that of a file.
const modules = join(scratch, 'chkpt');
try {
  const declarations =
    given === undefined ? ['--declarationDir', target] : ['--noCheck', '--declaration', 'false'];
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  const options = ['-p', join(root, 'tsconfig.build.json'), '--outDir', modules, ...declarations];
  execFileSync(process.execPath, [tsc, ...options], { stdio: ['ignore', 'inherit', 'inherit'] });
  const bundle = await rolldown({
    input: Object.fromEntries(entries.map((entry) => [entry, join(modules, `${entry}.js`)])),
    cwd: modules,
    platform: 'node',
    external: (id) => !/^[./]/.test(id),
    onLog: (level, log) => {
      if (level === 'warn') throw new Error(log.message);
    },
  });
  await bundle.write({
    // Comments are in the declarations; here they would be text that V8 keeps, in two bytes a letter if one of them needs it.
    ...{ dir: target, format: 'esm', comments: false },
    ...{ entryFileNames: '[name].js', chunkFileNames: 'lib/[name]-[hash].js' },
  });
  await bundle.close();
  // No compiler sets the executable bit.
  for (const path of Object.values(bin)) chmodSync(join(target, path.replace(/^dist\//, '')), 0o755);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
