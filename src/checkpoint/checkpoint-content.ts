/**
 * What a checkpoint holds, in whatever form it is stored: a digest of every value and of guest memory. Says whether another one, which was
 * made of it in a format of others, holds the same, and where not.
 *
 * Memory: some 100 bytes for each tag.
 */
import { createHash } from 'node:crypto';

export class CheckpointContent {
  readonly #tags = new Map<string, string>();
  readonly #memory: bigint[] = [];
  /** Somebody has taken note of a whole checkpoint: of some stores nobody does. */
  isTaken = false;

  /** Keeps a digest of a value. Types are left out: some formats have none. */
  takeTag(context: string, tag: string, data: Uint8Array): void {
    // No name has a NUL.
    this.#tags.set(`${context}\0${tag}`, createHash('sha256').update(data).digest('base64'));
  }

  /** `onMemoryDigest` of a store. */
  readonly takeMemory = (digest: bigint): void => void this.#memory.push(digest);

  /** What `actual`, which was made of this, does not have as it is here, in words; `undefined` when it has all. */
  differenceTo(actual: CheckpointContent): string | undefined {
    for (const [name, digest] of this.#tags) {
      const found = actual.#tags.get(name);
      const place = name.split('\0').join('/');
      if (found === undefined) return `${place} is not there`;
      if (found !== digest) return `${place} has another value`;
    }
    if (actual.#tags.size !== this.#tags.size) return 'there are tags that were not written';
    const isSame =
      actual.#memory.length === this.#memory.length &&
      this.#memory.every((digest, index) => actual.#memory[index] === digest);
    return isSame ? undefined : 'its memory is not the same';
  }
}
