/** Cuts a stream of bytes into lines of bounded length. */

/** QEMU's longest answers (lists of objects) have some hundred KiB. */
export const lineBytesMax = 8 * 1024 * 1024;

const lineFeed = 10;

export class LineReader {
  #parts: Buffer[] = [];
  #length = 0;

  /** The lines that `data` completes, without empty ones. Throws when one is too long. */
  *push(data: Buffer): Generator<string> {
    let begin = 0;
    for (let end = data.indexOf(lineFeed); end !== -1; end = data.indexOf(lineFeed, begin)) {
      this.#append(data.subarray(begin, end));
      begin = end + 1;
      const line = Buffer.concat(this.#parts).toString('utf8').trim();
      this.#parts = [];
      this.#length = 0;
      if (line !== '') yield line;
    }
    this.#append(data.subarray(begin));
  }

  #append(part: Buffer): void {
    if (part.length === 0) return;
    this.#length += part.length;
    if (this.#length > lineBytesMax) throw new Error(`a line longer than ${lineBytesMax} bytes`);
    this.#parts.push(part);
  }
}
