/** `--scrub BASE+SIZE` and `--leave-out BASE+SIZE`: guest memory that a save does not hold. */
import {
  type MemoryRange,
  type ScrubbedRange,
  type ScrubOptions,
  scrubbedRanges,
} from '../checkpoint/scrub.ts';
import type { MemoryRegion } from '../context/memory-frames.ts';
import { parseSize } from './memory-argument.ts';
import type { ParsedLine } from './parse-line.ts';
import { usageError } from './usage-error.ts';

/** Throws `CHKPT_USAGE`. */
export function scrubOf(line: ParsedLine): ScrubOptions {
  return { scrub: rangesOf(line, 'scrub'), leaveOut: rangesOf(line, 'leave-out') };
}

/** The ranges, by address, when the memory has them. Throws `CHKPT_USAGE`. */
export function checkScrub(
  scrub: ScrubOptions,
  regions: readonly MemoryRegion[] | undefined,
): ScrubbedRange[] {
  try {
    return scrubbedRanges(scrub, regions);
  } catch (error) {
    throw usageError(`--scrub, --leave-out: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function rangesOf(line: ParsedLine, name: string): MemoryRange[] {
  return line.all(name).map((text) => {
    const plus = text.indexOf('+');
    const [base, bytes] = [parseSize(text.slice(0, Math.max(plus, 0))), parseSize(text.slice(plus + 1))];
    if (plus > 0 && base !== undefined && bytes !== undefined) return { base, bytes };
    throw usageError(`--${name} ${text}: BASE+SIZE is expected, as 0x100000+64K`);
  });
}
