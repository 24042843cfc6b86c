/**
 * The list of what an original does wrong, in the order of its description: each line is a test of the checklist files, whose name is the
 * promise, or stands here with the reason why it says nothing to chkpt. Lines have numbers over all sections.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

export const sections = [
  ['correctness', 21],
  ['integrity and versions', 12],
  ['hostile input', 10],
  ['liveness', 13],
  ['usability', 4],
] as const;

export type SectionName = (typeof sections)[number][0];

/** Lines without a test, and why. */
export const notApplicable: ReadonlyMap<number, string> = new Map<number, string>();

export type Line = (number: number, promise: string, body: () => Promise<void> | void) => void;

/** Registers the tests of a section, and one that no line of it is missing. */
export function describeSection(name: SectionName, define: (line: Line) => void): void {
  const numbers: number[] = [];
  describe(name, () => {
    define((number, promise, body) => {
      numbers.push(number);
      test(`${number}. ${promise}`, body);
    });

    test('every line is here, in order, once', () => {
      const tested = numbersOf(name).filter((number) => !notApplicable.has(number));
      expect(numbers).toEqual(tested);
    });

    test('every section is in exactly one file', () => {
      const folder = new URL('..', import.meta.url);
      const texts = readdirSync(folder)
        .filter((file) => /^checklist-.*\.test\.ts$/.test(file))
        .map((file) => readFileSync(new URL(file, folder), 'utf8'));
      const found = texts.flatMap((text) =>
        [...text.matchAll(/^describeSection\('([^']+)'/gm)].map(([, one]) => one),
      );
      expect(found.sort()).toEqual(sections.map(([one]) => one).sort());
    });
  });
}

function numbersOf(name: SectionName): number[] {
  const at = sections.findIndex(([one]) => one === name);
  const first = sections.slice(0, at).reduce((sum, [, lines]) => sum + lines, 1);
  return Array.from({ length: sections[at]?.[1] ?? 0 }, (_, index) => first + index);
}
