/** Page content for tests, by kind; the same for the same kind and page. */

/** The page that a kind stands for. */
export function pageOfKind(kind: number, page: number): Uint8Array | undefined {
  if (kind <= 1) return undefined;
  if (kind === 2) return new Uint8Array(4096);
  if (kind <= 4) return new Uint8Array(4096).map((_, index) => (index % 8) + kind);
  if (kind <= 7) return new Uint8Array(4096).map((_, index) => (index >> 5) + kind);
  let state = (page + 1) * 2_654_435_761;
  return new Uint8Array(4096).map(() => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 24;
  });
}
