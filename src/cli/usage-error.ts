/** Errors of the command line itself, and what was probably meant. */
import { CheckpointError } from '../errors/index.ts';

/** `CHKPT_USAGE`: the process ends with exit code 2. */
export function usageError(what: string): CheckpointError {
  return new CheckpointError('CHKPT_USAGE', what);
}

/** `; did you mean X?` for the candidate that is a slip of the finger away, or nothing. */
export function suggestion(word: string, candidates: readonly string[]): string {
  const ranked = candidates
    .map((candidate) => ({ candidate, distance: editDistance(word.toLowerCase(), candidate) }))
    .sort((one, other) => one.distance - other.distance);
  const best = ranked[0];
  const slipMax = word.length < 5 ? 1 : 2;
  return best === undefined || best.distance > slipMax ? '' : `; did you mean ${best.candidate}?`;
}

/** Fewest insertions, deletions, changes and swaps of neighbours from one word to the other. */
function editDistance(from: string, to: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let row = 1; row <= from.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= to.length; column += 1) {
      const isSame = from[row - 1] === to[column - 1];
      const isSwap =
        row > 1 && column > 1 && from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      current[column] = Math.min(
        Number(last[column]) + 1,
        Number(current[column - 1]) + 1,
        Number(last[column - 1]) + (isSame ? 0 : 1),
        isSwap ? Number(beforeLast[column - 2]) + 1 : Number.POSITIVE_INFINITY,
      );
    }
    beforeLast = last;
    last = current;
  }
  return Number(last[to.length]);
}
