/**
 * The command line as it is shipped: compiled and laid out as in the package. One build per content of src/, under out/cli/, so that
 * parallel runs and a `dist/` in the making do not disturb each other.
 */
import { execFileSync } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../..', import.meta.url)).replace(/\/$/, '');
const base = `${root}/out/cli`;
const keptMs = 3_600_000;

/** Path of `main.js`, built when src/ has changed. */
export function buildCommandLine(): string {
  return `${build('dist', (folder) => [`${root}/scripts/build-ts.mjs`, folder])}/cli/main.js`;
}

/** Folder of src/ as JavaScript, module by module: for processes of tests that use more than the package exports. */
export function buildModules(): string {
  const tsc = `${root}/node_modules/typescript/bin/tsc`;
  const options = ['-p', `${root}/tsconfig.build.json`, '--noCheck', '--declaration', 'false'];
  return build('modules', (folder) => [tsc, ...options, '--outDir', folder]);
}

/** `command`: arguments of Node that fill a folder. */
function build(kind: 'dist' | 'modules', command: (folder: string) => string[]): string {
  const folder = `${base}/${kind}-${hashOf(`${root}/src`)}`;
  if (existsSync(folder)) return folder;
  mkdirSync(base, { recursive: true });
  removeOlder();
  const unfinished = `${base}/new-${randomUUID()}`;
  execFileSync(process.execPath, command(unfinished), { stdio: 'pipe' });
  try {
    renameSync(unfinished, folder);
  } catch {
    // Another worker was faster.
    rmSync(unfinished, { recursive: true, force: true });
  }
  return folder;
}

function removeOlder(): void {
  for (const name of readdirSync(base)) {
    if (!/^(dist|modules|new)-/.test(name)) continue;
    const path = `${base}/${name}`;
    const status = statSync(path, { throwIfNoEntry: false });
    if (status !== undefined && Date.now() - status.mtimeMs > keptMs)
      rmSync(path, { recursive: true, force: true });
  }
}

function hashOf(folder: string): string {
  const hash = createHash('sha256');
  const entries = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  for (const entry of entries.filter((name) => name.endsWith('.ts')).sort()) {
    hash.update(`${entry}\0`).update(readFileSync(`${folder}/${entry}`));
  }
  hash.update(readFileSync(`${root}/scripts/build-ts.mjs`));
  return hash.digest('hex').slice(0, 16);
}
