/** Which pages a plan looks at: some of all, some of those that were written. */
import { PageSet } from '../../memory/index.ts';

/** Parts of memory that samples of written pages are taken from. */
const zones = 128;

/**
 * About so many pages, in runs of `runPages` at a random place of each equal part of the memory: a pattern of the guest's is not met by
 * another one.
 */
export function spreadOver(pageCount: number, pages: number, runPages: number): PageSet {
  const sample = new PageSet(pageCount);
  const runs = Math.ceil(pageCount / runPages);
  const count = Math.min(Math.max(Math.floor(pages / runPages), 1), runs);
  for (let part = 0; part < count; part += 1) {
    const from = Math.floor((part * runs) / count);
    const width = Math.floor(((part + 1) * runs) / count) - from;
    const first = (from + Math.floor(Math.random() * width)) * runPages;
    sample.markRun(first, Math.min(runPages, pageCount - first));
  }
  return sample;
}

/** Some `pages` of a set, from all parts of memory; all when it has no more. */
export function someOf(set: PageSet, pages: number): PageSet {
  const rest = copyOf(set);
  if (set.count() <= pages) return rest;
  const some = new PageSet(set.pageCount);
  for (let zone = 1; zone <= zones; zone += 1) {
    some.merge(rest.takeFirst(Math.ceil(pages / zones)));
    rest.clearRun(0, Math.floor((zone * set.pageCount) / zones));
  }
  return some;
}

/** What both have. */
export function common(one: PageSet, other: PageSet): PageSet {
  const onlyOne = copyOf(one);
  onlyOne.subtract(other);
  const both = copyOf(one);
  both.subtract(onlyOne);
  return both;
}

export function copyOf(set: PageSet): PageSet {
  const copy = new PageSet(set.pageCount);
  copy.merge(set);
  return copy;
}
