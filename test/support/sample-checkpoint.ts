/**
 * A small checkpoint that has everything: values of several kinds, guest memory with every class of page, an
 * index.
 */
import { StreamWriter } from '../../src/context/stream-writer.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import { encodeUnknown } from '../../src/format/value.ts';
import { pageOfKind } from './page-content.ts';
import { referenceSource } from './page-encoder.ts';
import { TestStore } from './test-store.ts';

export const sampleUuid = 'a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf';

export const sampleRegions = [
  { base: 0n, bytes: 20n * 4096n },
  { base: 0x10_0000n, bytes: 33n * 4096n },
];

/** Pages 0 to 52: zero, fill, stored and compressible, same. One raw page, so that flips hit raw data too. */
export function samplePage(page: number): Uint8Array | undefined {
  const kinds: Record<number, number> = { 0: 5, 1: 5, 2: 3, 17: 6, 19: 5, 40: 7 };
  return pageOfKind(kinds[page] ?? 0, page);
}

export interface SampleOptions {
  readonly uuid?: string;
  readonly createdMs?: number;
  readonly index?: boolean;
  /** Changes one value, and nothing else. */
  readonly irr?: number;
}

/** About 6 KB. */
export async function sampleCheckpoint(digest: Digest64, options: SampleOptions = {}): Promise<Uint8Array> {
  const { uuid = sampleUuid, createdMs = 1_700_000_000_000, index, irr = 7 } = options;
  const store = new TestStore();
  const writer = await StreamWriter.open(await store.openWriter({ uuid }), {
    uuid,
    digest,
    createdMs,
    index,
  });
  await writer.openContext('pic');
  await writer.tag('irr', 'u8', encodeUnknown('u8', irr, {}));
  await writer.tag('name', 'string', Buffer.from('8259A'));
  await writer.tag(
    'ram',
    'bytes',
    new Uint8Array(1003).map((_, at) => at * 7),
  );
  await writer.closeContext();
  await writer.memory('memory', referenceSource(sampleRegions, samplePage, digest));
  await writer.openContext('pit');
  await writer.tag('counter', 'u64', encodeUnknown('u64', 0x1234_5678_9abcn, {}));
  await writer.tag('modes', 'u16[]', encodeUnknown('u16[]', Uint16Array.of(1, 2, 3), {}));
  await writer.closeContext();
  await writer.finish();
  return store.bytes ?? new Uint8Array();
}
