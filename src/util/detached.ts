/** Typed arrays that have lost their memory. */

/** Such an array reads as length 0, like an empty one; only methods that validate it tell the difference. */
export function isDetached(array: { readonly byteLength: number }): boolean {
  if (array.byteLength > 0) return false;
  try {
    Uint8Array.prototype.keys.call(array as Uint8Array);
    return false;
  } catch {
    return true;
  }
}
