/** What a command gets: its parsed line, the common options, where its output goes, and how it is told to stop. */
import type { CommonOptions } from './common-options.ts';
import type { Output } from './output.ts';
import type { ParsedLine } from './parse-line.ts';

export interface Invocation {
  readonly line: ParsedLine;
  readonly common: CommonOptions;
  readonly output: Output;
  /** Aborts with the first SIGINT, SIGTERM or SIGHUP. */
  readonly signal: AbortSignal;
}
