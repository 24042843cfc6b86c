/**
 * Bytes that an original writes, as hexadecimal dumps: offset, then bytes. What does not follow on has a gap between.
 */

/** The bytes of a dump; those that it leaves out are zero. */
export function bytesOf(dump: string): Uint8Array {
  const bytes: number[] = [];
  for (const line of dump.trim().split('\n')) {
    const [offset, ...digits] = line.trim().split(/\s+/);
    const start = Number.parseInt(String(offset), 16);
    while (bytes.length < start) bytes.push(0);
    bytes.push(...digits.map((pair) => Number.parseInt(pair, 16)));
  }
  return Uint8Array.from(bytes);
}

/** Tag `RIP`, value 0xfff0. */
export const recordOfRip = bytesOf(`
  00000000  23 01 cd ab 03 00 00 00  00 00 00 00 52 49 50 08
  00000010  00 00 00 00 00 00 00 f0  ff 00 00 00 00 00 00
`);

/** File `header` of an AMD checkpoint. */
export const headerFile = bytesOf(`
  00000000  23 01 cd ab 06 00 00 00  00 00 00 00 68 65 61 64
  00000010  65 72 2f 00 00 00 00 00  00 00 76 33 76 65 65 20
  00000020  70 61 6c 61 63 69 6f 73  20 63 68 65 63 6b 70 6f
  00000030  69 6e 74 20 76 65 72 73  69 6f 6e 3a 20 78 2e 78
  00000040  2c 20 53 56 4d 20 78 2e  78
`);

/** File `devices` with `8259a` and `serial`. */
export const devicesFile = bytesOf(`
  00000000  23 01 cd ab 08 00 00 00  00 00 00 00 6e 75 6d 5f
  00000010  64 65 76 73 04 00 00 00  00 00 00 00 02 00 00 00
  00000020  23 01 cd ab 05 00 00 00  00 00 00 00 6e 61 6d 65
  00000030  73 40 00 00 00 00 00 00  00 38 32 35 39 61 00 00
  00000040  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00
  00000050  00 00 00 00 00 00 00 00  00 73 65 72 69 61 6c 00
  00000060  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00
  00000070  00 00 00 00 00 00 00 00  00
`);

/** The same as text. */
export const devicesTextFile = bytesOf(`
  00000000  5b 64 65 76 69 63 65 73  5d 0a 6e 75 6d 5f 64 65
  00000010  76 73 3d 30 32 30 30 30  30 30 30 0a 6e 61 6d 65
  00000020  73 3d 33 38 33 32 33 35  33 39 36 31 30 30 30 30
  00000030  30 30 30 30 30 30 30 30  30 30 30 30 30 30 30 30
  00000040  30 30 30 30 30 30 30 30  30 30 30 30 30 30 30 30
  00000050  30 30 30 30 30 30 30 30  30 30 30 30 30 30 30 30
  00000060  30 30 37 33 36 35 37 32  36 39 36 31 36 63 30 30
  00000070  30 30 30 30 30 30 30 30  30 30 30 30 30 30 30 30
  00000080  30 30 30 30 30 30 30 30  30 30 30 30 30 30 30 30
  00000090  30 30 30 30 30 30 30 30  30 30 30 30 30 30 30 30
  000000a0  30 30 0a
`);

/** Context `devices` without devices on a connection. */
export const emptyDevicesOnTheWire = bytesOf(`
  00000000  07 80 64 65 76 69 63 65  73 23 01 cd ab 08 00 00
  00000010  00 00 00 00 00 6e 75 6d  5f 64 65 76 73 04 00 00
  00000020  00 00 00 00 00 00 00 00  00 23 01 cd ab 05 00 00
  00000030  00 00 00 00 00 6e 61 6d  65 73 00 00 00 00 00 00
  00000040  00 00 07 80 64 65 76 69  63 65 73
`);

/** Pages 0, 3 and 9 of 12. */
export const bitmapOnTheWire = bytesOf(`
  00000000  12 80 6d 65 6d 6f 72 79  5f 62 69 74 6d 61 70 5f
  00000010  62 69 74 73 23 01 cd ab  12 00 00 00 00 00 00 00
  00000020  6d 65 6d 6f 72 79 5f 62  69 74 6d 61 70 5f 62 69
  00000030  74 73 02 00 00 00 00 00  00 00 09 02 12 80 6d 65
  00000040  6d 6f 72 79 5f 62 69 74  6d 61 70 5f 62 69 74 73
`);

/** First and last bytes of a page of zeros. */
export const pageOnTheWire = bytesOf(`
  00000000  0b 80 6d 65 6d 6f 72 79  5f 70 61 67 65 23 01 cd
  00000010  ab 0b 00 00 00 00 00 00  00 6d 65 6d 6f 72 79 5f
  00000020  70 61 67 65 00 10 00 00  00 00 00 00 00 00 00 00
  00001029  00 00 00 0b 80 6d 65 6d  6f 72 79 5f 70 61 67 65
`);

/** File `devices` without tags. */
export const devicesPlainFile = bytesOf(`
  00000000  02 00 00 00 38 32 35 39  61 00 00 00 00 00 00 00
  00000010  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00
  00000020  00 00 00 00 73 65 72 69  61 6c 00 00 00 00 00 00
  00000030  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00
  00000040  00 00 00 00
`);

/** A request to write: tag `num_devs`, value 2, handle 5. */
export const userWriteRequest = bytesOf(`
  00000000  3c 00 00 00 00 00 00 00  05 00 00 00 00 00 00 00
  00000010  04 00 00 00 00 00 00 00  05 00 00 00 00 00 00 00
  00000020  0c 00 00 00 00 00 00 00  08 00 00 00 00 00 00 00
  00000030  6e 75 6d 5f 64 65 76 73  02 00 00 00
`);

/** The answer to a request to read it. */
export const userReadResponse = bytesOf(`
  00000000  34 00 00 00 00 00 00 00  06 00 00 00 00 00 00 00
  00000010  04 00 00 00 00 00 00 00  05 00 00 00 00 00 00 00
  00000020  04 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00
  00000030  02 00 00 00
`);

/** Context `devices` as the reference handler keeps it. */
export const devicesOfReferenceHandler = bytesOf(`
  00000000  6e 75 6d 5f 64 65 76 73  02 00 00 00 6e 61 6d 65
  00000010  73 38 32 35 39 61 00 00  00 00 00 00 00 00 00 00
  00000020  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00
  00000030  00 73 65 72 69 61 6c 00  00 00 00 00 00 00 00 00
  00000040  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00
  00000050  00
`);

/** 64-bit code segment, selector 0x10. */
export const codeSegment = bytesOf(`
  00000000  10 00 ff ff ff ff 00 00  00 00 00 00 00 00 9b 0a
`);

/** First two records of `guest_info0`: running, long mode. */
export const beginOfGuestInfo = bytesOf(`
  00000000  23 01 cd ab 09 00 00 00  00 00 00 00 72 75 6e 5f
  00000010  73 74 61 74 65 04 00 00  00 00 00 00 00 01 00 00
  00000020  00 23 01 cd ab 08 00 00  00 00 00 00 00 63 70 75
  00000030  5f 6d 6f 64 65 04 00 00  00 00 00 00 00 03 00 00
  00000040  00
`);
