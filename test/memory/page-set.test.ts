/** PageSet against a Set of numbers. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { PageSet } from '../../src/index.ts';

function pagesOf(set: PageSet, limit?: number): number[] {
  const pages: number[] = [];
  for (const packed of set.runs(limit === undefined ? {} : { limit })) {
    for (let i = 0; i < packed.length; i += 2) {
      const [first, count] = [packed[i] as number, packed[i + 1] as number];
      for (let page = first; page < first + count; page++) pages.push(page);
    }
  }
  return pages;
}

const ascending = (pages: Iterable<number>): number[] => [...pages].sort((a, b) => a - b);

it('holds the pages that a Set of numbers holds, whatever is marked, merged and taken', () => {
  const step = fc.record({
    what: fc.constantFrom('mark', 'merge', 'take'),
    first: fc.nat(499),
    count: fc.nat(200),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), fc.integer({ min: 1, max: 5 }), (steps, limit) => {
      const set = new PageSet(500);
      let model = new Set<number>();
      for (const { what, first, count } of steps) {
        const run = Array.from({ length: Math.min(count, 500 - first) }, (_, i) => first + i);
        if (what === 'mark') set.markRun(first, run.length);
        if (what === 'merge') {
          const other = new PageSet(500);
          other.markRun(first, run.length);
          set.merge(other);
          expect(other.count()).toBe(run.length);
        }
        if (what === 'take') {
          const taken = set.take();
          expect(pagesOf(taken)).toEqual(ascending(model));
          expect(set.count()).toBe(0);
          model = new Set();
        } else {
          for (const page of run) model.add(page);
        }
        expect(set.count()).toBe(model.size);
        expect(pagesOf(set, limit)).toEqual(ascending(model));
      }
    }),
    { numRuns: 60 },
  );
});

it('gives runs as long as can be, in pieces of the size asked for', () => {
  const set = new PageSet(2 ** 28);
  for (const first of [5, 6, 64, 1000, 2 ** 28 - 2]) set.markRun(first, 2);
  expect([...set.runs({ limit: 2 })].map((packed) => [...packed])).toEqual([
    [5, 3, 64, 2],
    [1000, 2, 2 ** 28 - 2, 2],
  ]);
});

it('refuses pages and sets that do not fit', () => {
  const set = new PageSet(100);
  for (const [first, count] of [
    [-1, 1],
    [0.5, 1],
    [100, 1],
    [99, 2],
    [Number.NaN, 1],
  ] as const) {
    expect(() => set.markRun(first, count)).toThrow(RangeError);
  }
  expect(() => set.merge(new PageSet(101))).toThrow(RangeError);
  expect(() => [...set.runs({ limit: 0 })]).toThrow(RangeError);
  for (const pages of [0, -1, 1.5, 2 ** 32 + 1]) expect(() => new PageSet(pages)).toThrow(RangeError);
  expect(() => set.native.merge({} as never)).toThrow(TypeError);
  expect(() => set.native.runs(0, 2 ** 30)).toThrow(TypeError);
  set.merge(set);
  expect(set.count()).toBe(0);
});
