/**
 * What a checkpoint holds, in whatever form it is stored: a digest of every value and of every page. Says whether another one, which was
 * made of it in a format of others, holds the same, and where not.
 *
 * Memory: some 100 bytes for each tag, 16 for each page that is not zero.
 */
import { createHash } from 'node:crypto';
import { PageDigests } from '../memory/index.ts';

export class CheckpointContent {
  readonly #tags = new Map<string, string>();
  readonly #key: CheckpointContent | undefined;
  #pages: PageDigests | undefined;

  /** `key`: what this one is compared with. */
  constructor(key?: CheckpointContent) {
    this.#key = key;
  }

  /** Keeps a digest of a value. Types are left out: some formats have none. */
  takeTag(context: string, tag: string, data: Uint8Array): void {
    // No name has a NUL.
    this.#tags.set(`${context}\0${tag}`, createHash('sha256').update(data).digest('base64'));
  }

  /** Where the digests of pages go. Throws `CHKPT_NO_MEMORY`. */
  pagesOf(pageCount: number): PageDigests {
    const other = this.#key === undefined ? undefined : this.#key.#pages;
    this.#pages = new PageDigests(pageCount, other?.pageCount === pageCount ? other : undefined);
    return this.#pages;
  }

  /** What is not the same in both, in words; `undefined` when all is. `this` was made with `other` as its key. */
  async differenceTo(other: CheckpointContent): Promise<string | undefined> {
    for (const [name, digest] of other.#tags) {
      const actual = this.#tags.get(name);
      const place = name.split('\0').join('/');
      if (actual === undefined) return `${place} is not there`;
      if (actual !== digest) return `${place} has another value`;
    }
    if (this.#tags.size !== other.#tags.size) return 'there are tags that were not written';
    return await this.#differingPages(other);
  }

  async #differingPages(other: CheckpointContent): Promise<string | undefined> {
    const [pages, expected] = [this.#pages, other.#pages];
    if (pages === undefined || expected === undefined || pages.pageCount !== expected.pageCount)
      return pages === expected ? undefined : 'its memory has another size';
    const set = await pages.differing(expected);
    const count = set.count();
    if (count === 0) return undefined;
    const [first] = set.runs().next().value ?? [];
    return `${count} pages are not the same, the first of them page ${first}`;
  }
}
