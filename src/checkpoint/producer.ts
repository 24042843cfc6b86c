import { createRequire } from 'node:module';

let text: string | undefined;

/** Program and version, as the header of a checkpoint tells it. */
export function producer(): string {
  text ??= `chkpt ${(createRequire(import.meta.url)('../../package.json') as { version: string }).version}`;
  return text;
}
