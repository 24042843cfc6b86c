/** `--as continue|clone` and `--force`: whether the machine that was saved goes on, or another one begins as its equal. */
import type { IdentityOptions, IdentityReport } from '../index.ts';
import type { ParsedLine } from './parse-line.ts';
import { usageError } from './usage-error.ts';

/** Throws `CHKPT_USAGE`. */
export function identityOf(line: ParsedLine): IdentityOptions {
  // The command table has the values.
  const as = line.last('as') as IdentityOptions['as'];
  const force = line.has('force');
  if (force && as === undefined) throw usageError('--force goes with --as');
  return { as, force };
}

/** What the summary of a load says of it. */
export function identityNote({ generation, earlier }: IdentityReport): string {
  if (generation !== undefined) return `, a clone of generation ${generation}`;
  return earlier === undefined ? '' : `, although it was continued before by ${earlier.by}`;
}

/** Part of the document of `--json`. */
export function identityDocument({ generation, earlier }: IdentityReport): object {
  return {
    ...(generation === undefined ? {} : { generation }),
    ...(earlier === undefined
      ? {}
      : { earlier: { by: earlier.by, time: new Date(earlier.timeMs).toISOString() } }),
  };
}
