/**
 * The one module that loads the addon: a build of this checkout, or a prebuilt binary of the package.
 *
 * `CHKPT_NO_NATIVE=1` in the environment makes it behave as where no binary fits.
 */
import { createRequire } from 'node:module';
import { CheckpointError } from '../errors/index.ts';
import { packageRoot } from '../util/package-root.ts';
import type { NativeAddon } from './addon.ts';

type Loaded = { readonly addon: NativeAddon } | { readonly failure: unknown };

let loaded: Loaded | undefined;

/** The addon. Throws `CHKPT_NO_NATIVE` where it cannot be loaded. */
export function nativeAddon(): NativeAddon {
  loaded ??= load();
  if ('addon' in loaded) return loaded.addon;
  const place = `${process.platform}-${process.arch}`;
  throw new CheckpointError('CHKPT_NO_NATIVE', `no native addon for ${place}`, { cause: loaded.failure });
}

/** Whether `nativeAddon()` returns. */
export function hasNativeAddon(): boolean {
  loaded ??= load();
  return 'addon' in loaded;
}

function load(): Loaded {
  if (process.env['CHKPT_NO_NATIVE'] === '1') return { failure: new Error('CHKPT_NO_NATIVE is set') };
  try {
    const require = createRequire(import.meta.url);
    const build = require('node-gyp-build') as (folder: string) => NativeAddon;
    return { addon: build(packageRoot()) };
  } catch (failure) {
    return { failure };
  }
}
