/** Guest memory of a live migration on the wire of an original: the set of pages of a round, then the pages, ascending. */
import { CheckpointError } from '../../errors/index.ts';
import { encodeKeyFrame } from '../../foreign/palacios/key-frame.ts';
import { encodeRecordHead } from '../../foreign/palacios/record.ts';
import type { WireReader } from '../../foreign/palacios/wire-reader.ts';
import { formatError } from '../../format/bytes.ts';
import { type GuestMemory, PageSet } from '../../memory/index.ts';
import { callNative, nativeAddon } from '../../native/index.ts';

export const bitmapContext = 'memory_bitmap_bits';
/** Pages that native code makes frames of, or places, at once. */
const pagesAtOnce = 256;
/** Bytes of a page with its frames. */
export const pageFrameBytes = 4153;

/** Throws `CHKPT_UNSUPPORTED`: an original numbers pages by their address, from 0 on, without holes. */
export function checkOneRange(memory: GuestMemory): void {
  let end = 0n;
  for (const { base, bytes } of memory.regions) {
    if (base !== end) {
      throw new CheckpointError(
        'CHKPT_UNSUPPORTED',
        'memory is not one range from address 0, as that of an original',
        {
          details: { expected: end, actual: base },
        },
      );
    }
    end += bytes;
  }
}

/** The pages as the context that announces them; an empty set is the end of memory. */
export function encodeBitmap(pages: PageSet): Uint8Array[] {
  const bits = pages.toBits().subarray(0, Math.ceil(pages.pageCount / 8));
  const frame = encodeKeyFrame(bitmapContext);
  return [frame, encodeRecordHead(bitmapContext, bits.length), bits, frame];
}

/** The pages as contexts, some hundred at a time. */
export function* encodePages(memory: GuestMemory, pages: PageSet): Generator<Uint8Array> {
  const addon = nativeAddon();
  for (const packed of pages.runs()) {
    for (let at = 0; at < packed.length; at += 2) {
      const first = packed[at] as number;
      const end = first + (packed[at + 1] as number);
      for (let page = first; page < end; page += pagesAtOnce) {
        const count = Math.min(pagesAtOnce, end - page);
        yield callNative(() => addon.encodePalaciosPages(memory.native, page, count));
      }
    }
  }
}

/** Reads the set of pages of a context that is open; its length must be that of `memory`. Throws `CHKPT_FORMAT`. */
export async function readBitmap(reader: WireReader, memory: GuestMemory): Promise<PageSet> {
  const { pageCount } = memory;
  const byteCount = Math.ceil(pageCount / 8);
  await reader.expect(bitmapContext, bitmapContext, byteCount);
  const words = new Uint8Array(8 * Math.ceil(pageCount / 64));
  await reader.fill(words.subarray(0, byteCount));
  const padding = pageCount % 8 === 0 ? 0 : (words[byteCount - 1] as number) >> (pageCount % 8);
  if (padding !== 0)
    throw formatError('the set of pages has more than memory', { ...reader.place, context: bitmapContext });
  await reader.close(bitmapContext);
  const pages = new PageSet(pageCount);
  pages.mergeBits(words);
  return pages;
}

/** Reads the pages of a set into `memory`. Throws `CHKPT_FORMAT` with the page that is none. */
export async function readPages(
  reader: WireReader,
  memory: GuestMemory,
  pages: PageSet,
  onPages: (count: number) => void,
): Promise<void> {
  const addon = nativeAddon();
  const buffer = new Uint8Array(pagesAtOnce * pageFrameBytes);
  for (const packed of pages.runs()) {
    for (let at = 0; at < packed.length; at += 2) {
      const first = packed[at] as number;
      const end = first + (packed[at + 1] as number);
      for (let page = first; page < end; page += pagesAtOnce) {
        const frames = buffer.subarray(0, Math.min(pagesAtOnce, end - page) * pageFrameBytes);
        await reader.fill(frames);
        callNative(() => addon.placePalaciosPages(memory.native, page, frames));
        onPages(frames.length / pageFrameBytes);
      }
    }
  }
}
