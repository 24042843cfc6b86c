/** Reads a whole stream with everything verified, and gives its content back as plain values. */
import { StreamReader, type StreamSummary } from '../../src/context/stream-reader.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import { createLz4Decoder } from '../../src/format/lz4.ts';
import type { Region } from '../../src/format/region-table.ts';
import type { ValueType } from '../../src/format/value.ts';
import { PortableVerifier } from '../../src/memory/portable-verifier.ts';
import { TestStore, type TestStoreOptions } from './test-store.ts';

export interface ReadContext {
  readonly name: string;
  readonly kind: 'values' | 'memory';
  readonly tags: { readonly name: string; readonly type: ValueType; readonly data: Uint8Array }[];
}

export interface ReadResult {
  readonly contexts: readonly ReadContext[];
  readonly regions: readonly Region[];
  /** Pages that are not zero. */
  readonly pages: ReadonlyMap<number, Uint8Array>;
  readonly summary: StreamSummary;
}

const decodeLz4 = createLz4Decoder();

/** Collects the pages that a verifier is shown. */
export function collectPages(): {
  readonly pages: Map<number, Uint8Array>;
  onPages(firstPage: number, bytes: Uint8Array): void;
  readPage(page: number): Uint8Array;
} {
  const pages = new Map<number, Uint8Array>();
  const zero = new Uint8Array(4096);
  return {
    pages,
    onPages: (firstPage, bytes) => {
      for (let at = 0; at < bytes.length; at += 4096) {
        const page = bytes.subarray(at, at + 4096);
        if (Buffer.compare(page, zero) !== 0) pages.set(firstPage + at / 4096, page.slice());
      }
    },
    readPage: (page) => pages.get(page) ?? zero,
  };
}

export async function readStream(
  bytes: Uint8Array,
  digest: Digest64,
  options: TestStoreOptions & { readonly bufferBytes?: number } = {},
): Promise<ReadResult> {
  const reader = await new TestStore(options, bytes).openReader();
  const { bufferBytes } = options;
  const stream = new StreamReader(reader, { digest, bufferBytes, store: 'test:store' });
  const contexts: ReadContext[] = [];
  const { pages, onPages, readPage } = collectPages();
  let regions: readonly Region[] = [];
  let summary: StreamSummary | undefined;
  for await (const item of stream) {
    if (item.kind === 'end') summary = item.summary;
    if (item.kind === 'tag')
      contexts.at(-1)?.tags.push({ name: item.name, type: item.type, data: item.data });
    if (item.kind !== 'context-open') continue;
    contexts.push({ name: item.name, kind: item.contextKind, tags: [] });
    if (item.contextKind !== 'memory') continue;
    regions = item.regions;
    await stream.readMemory(new PortableVerifier({ digest, decodeLz4, bufferBytes, onPages, readPage }));
  }
  if (summary === undefined) throw new Error('no end');
  return { contexts, regions, pages, summary };
}
