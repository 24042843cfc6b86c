/**
 * What users get: both builds export the same, and the published tarball works where nothing may be compiled and no script runs.
 */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Checkout, copyCheckout, root, run } from './support.ts';

const minutes = 60_000;
let checkout: Checkout;

/** Everything an addon offers: functions, classes with their methods, objects with their members. */
function surface(value: unknown, name = ''): string[] {
  if (typeof value === 'function') {
    const methods = Object.getOwnPropertyNames((value as { prototype?: object }).prototype ?? {});
    return [`${name}()`, ...methods.sort().map((method) => `${name}.prototype.${method}`)];
  }
  if (typeof value !== 'object' || value === null) return [`${name}: ${typeof value}`];
  return Object.entries(value)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([key, member]) => surface(member, `${name}/${key}`));
}

// As a release is made, from a clone in which nothing was built.
beforeAll(async () => {
  checkout = await copyCheckout();
  await run('npm', ['pack'], { cwd: checkout.path });
}, 20 * minutes);
afterAll(() => checkout[Symbol.asyncDispose]());

describe('the two builds', () => {
  it('load side by side and export the same', { timeout: 20 * minutes }, async () => {
    const cwd = checkout.path;
    // prebuildify is node-gyp with the flags of a release; npm pack has called it.
    // Several sources at a time, and hardly optimised: what is compiled is the same.
    const quick = ['--CDCMAKE_UNITY_BUILD=ON', '--CDCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG'];
    await run('npx', ['cmake-js', 'rebuild', '-O', 'out/cmake-js', ...quick], { cwd });
    const prebuilt = await readdir(join(cwd, 'prebuilds', `${process.platform}-${process.arch}`));
    expect(prebuilt).toEqual(['chkpt.glibc.node']);
    const require = createRequire(import.meta.url);
    const gyp = require(join(cwd, 'prebuilds', `${process.platform}-${process.arch}`, 'chkpt.glibc.node'));
    const cmake = require(join(cwd, 'out/cmake-js/Release/chkpt.node'));
    expect(surface(cmake)).toEqual(surface(gyp));
    expect(surface(gyp).length).toBeGreaterThan(20);
    expect(cmake.capabilities()).toEqual(gyp.capabilities());
    expect(gyp.capabilities()).toMatchObject(
      process.env['CHKPT_SYSTEM_LIBS'] === '1' ? {} : { lz4Version: 11000, xxhashVersion: 803 },
    );
    const bytes = new TextEncoder().encode('the same bytes to both '.repeat(500));
    expect(cmake.xxh3(bytes)).toBe(gyp.xxh3(bytes));
    expect(cmake.lz4Encode(bytes, 1)).toEqual(gyp.lz4Encode(bytes, 1));
  });
});

describe('the published package', () => {
  it('of npm pack in a clone installs without scripts into an empty folder, saves and loads there', {
    timeout: 10 * minutes,
  }, async () => {
    const tarballs = (await readdir(checkout.path)).filter((name) => name.endsWith('.tgz'));
    expect(tarballs).toHaveLength(1);
    const folder = await mkdtemp(join(tmpdir(), 'chkpt-install-'));
    try {
      await writeFile(join(folder, 'package.json'), '{ "name": "user", "private": true, "type": "module" }');
      const install = [
        'install',
        '--ignore-scripts',
        '--no-audit',
        '--no-fund',
        ...tarballs.map((name) => join(checkout.path, name)),
      ];
      await run('npm', install, { cwd: folder });
      await mkdir(join(folder, 'store'));
      expect(await readdir(join(folder, 'node_modules'))).not.toContain('v86');
      await writeFile(
        join(folder, 'use.mjs'),
        await readFile(join(root, 'test/packaging/use-installed.mjs'), 'utf8'),
      );
      const output = await run(process.execPath, ['use.mjs'], { cwd: folder, env: { NODE_OPTIONS: '' } });
      expect(JSON.parse(output)).toEqual({
        adapters: ['KvmVm', 'QemuVm', 'SyntheticVm', 'V86Vm'],
        native: true,
        equal: true,
        verified: true,
      });
      const version = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')).version;
      expect(await run('npx', ['chkpt', '--version'], { cwd: folder })).toContain(version);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  it('has no install script, and the package lock no download address', async () => {
    const manifest = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
    expect(manifest.gypfile).toBe(false);
    for (const script of ['preinstall', 'install', 'postinstall', 'prepare']) {
      expect(manifest.scripts).not.toHaveProperty(script);
    }
    const versions = { ...manifest.dependencies, ...manifest.devDependencies };
    for (const version of Object.values(versions))
      expect(version).toMatch(/^(npm:[a-z0-9-]+@)?\d+\.\d+\.\d+$/);
    expect(await readFile(join(root, 'package-lock.json'), 'utf8')).not.toContain('"resolved"');
  });
});
