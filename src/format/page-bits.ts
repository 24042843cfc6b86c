/** A set of page numbers that takes memory for the pages in it, not for those there could be: one bit each, in leaves of 512. */
const leafPages = 512;

export class PageBits {
  readonly #leaves = new Map<number, Uint8Array>();

  add(page: number): void {
    const index = Math.floor(page / leafPages);
    let leaf = this.#leaves.get(index);
    if (leaf === undefined) {
      leaf = new Uint8Array(leafPages / 8);
      this.#leaves.set(index, leaf);
    }
    const bit = page % leafPages;
    leaf[bit >> 3] = (leaf[bit >> 3] ?? 0) | (1 << (bit & 7));
  }

  has(page: number): boolean {
    const leaf = this.#leaves.get(Math.floor(page / leafPages));
    const bit = page % leafPages;
    return leaf !== undefined && ((leaf[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0;
  }
}
