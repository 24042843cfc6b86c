/** A copy of the checkout to build in, so that builds do not disturb the tree or each other. */
import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, realpath, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export const root: string = fileURLToPath(new URL('../..', import.meta.url));

export interface RunOptions {
  readonly cwd: string;
  readonly env?: Record<string, string>;
}

/** Runs a program to its end; rejects with what it printed. */
export async function run(program: string, args: readonly string[], options: RunOptions): Promise<string> {
  const env = { ...process.env, CCACHE_BASEDIR: options.cwd, CCACHE_NOHASHDIR: '1', ...options.env };
  try {
    const { stdout } = await promisify(execFile)(program, [...args], {
      ...options,
      env,
      maxBuffer: 64 << 20,
    });
    return stdout;
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    throw new Error(`${program} ${args.join(' ')} failed:\n${stdout}\n${stderr}`, { cause: error });
  }
}

export interface Checkout extends AsyncDisposable {
  readonly path: string;
}

/**
 * The files that git knows (or would add), and the installed modules, linked file by file: a compiler's cache sees the same relative paths
 * as in the tree itself.
 */
export async function copyCheckout(): Promise<Checkout> {
  const path = await mkdtemp(join(tmpdir(), 'chkpt-checkout-'));
  const listed = await run('git', ['ls-files', '-co', '--exclude-standard'], { cwd: root });
  for (const file of listed.split('\n').filter(Boolean)) {
    await mkdir(dirname(join(path, file)), { recursive: true });
    await cp(join(root, file), join(path, file)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error; // deleted, not committed yet
    });
  }
  await run(
    'cp',
    ['-a', '--link', join(await realpath(join(root, 'node_modules')), '.'), join(path, 'node_modules')],
    { cwd: root },
  )
    // Another file system.
    .catch(() => symlink(join(root, 'node_modules'), join(path, 'node_modules')));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
