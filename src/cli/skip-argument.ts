import type { SkipPart } from '../checkpoint/virtual-machine.ts';
import type { ParsedLine } from './parse-line.ts';

/** The parts named by `--skip`, each once. The parser has checked them. */
export function skipOf(line: ParsedLine): SkipPart[] {
  return [...new Set(line.all('skip'))] as SkipPart[];
}
