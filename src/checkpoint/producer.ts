import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../util/package-root.ts';

let text: string | undefined;

/** Program and version, as the header of a checkpoint tells it. */
export function producer(): string {
  if (text === undefined) {
    const manifest = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8'));
    text = `chkpt ${(manifest as { version: string }).version}`;
  }
  return text;
}
