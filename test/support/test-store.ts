/**
 * A store in memory that watches how it is used. A write takes its bytes only just before it resolves, so
 * that memory that is reused too early shows up as damage.
 */
import { setImmediate } from 'node:timers/promises';
import type {
  CommitSummary,
  Segment,
  SegmentSummary,
  Store,
  StoreReader,
  StoreWriteOptions,
  StoreWriter,
} from '../../src/store/store.ts';

export interface TestStoreOptions {
  /** Tell the writer about segments. Default true. */
  readonly segments?: boolean;
  /** Random access. Default true. */
  readonly readAt?: boolean;
  /** Tell the length. Default true. */
  readonly byteLength?: boolean;
  /** Most bytes of one read. Default: no limit. */
  readonly readBytesMax?: number;
  /** Called before every call of a writer, with its name. */
  readonly onCall?: (name: string) => void | Promise<void>;
}

export interface WrittenSegment {
  readonly segment: Segment;
  summary?: SegmentSummary;
  readonly start: number;
}

export class TestStore implements Store {
  readonly url = 'test:store';
  readonly segments: WrittenSegment[] = [];
  readonly writes: number[] = [];
  readonly writeBuffers: ArrayBufferLike[] = [];
  readonly calls: string[] = [];
  readonly readOffsets: number[] = [];
  bytes: Uint8Array | undefined;
  summary: CommitSummary | undefined;
  aborted = 0;
  closed = 0;
  readonly options: TestStoreOptions;

  constructor(options: TestStoreOptions = {}, bytes?: Uint8Array) {
    this.options = options;
    this.bytes = bytes;
  }

  async openWriter(_options: StoreWriteOptions): Promise<StoreWriter> {
    const pieces: Buffer[] = [];
    let written = 0;
    let busy = false;
    const call = async (name: string, action: () => void): Promise<void> => {
      if (busy) throw new TypeError(`${name} before the call before has resolved`);
      busy = true;
      this.calls.push(name);
      try {
        await this.options.onCall?.(name);
        await setImmediate();
        action();
      } finally {
        busy = false;
      }
    };
    const writer: StoreWriter = {
      write: (bytes) => {
        this.writes.push(bytes.length);
        this.writeBuffers.push(bytes.buffer);
        return call('write', () => {
          pieces.push(Buffer.from(bytes));
          written += bytes.length;
        });
      },
      commit: (summary) =>
        call('commit', () => {
          this.bytes = Uint8Array.from(Buffer.concat(pieces));
          this.summary = summary;
        }),
      abort: async () => {
        this.aborted += 1;
      },
    };
    if (this.options.segments === false) return writer;
    return {
      ...writer,
      beginSegment: (segment) => call('begin', () => this.segments.push({ segment, start: written })),
      endSegment: (summary) =>
        call('end', () => {
          const last = this.segments.at(-1);
          if (last === undefined || written - last.start !== summary.bytes)
            throw new Error('wrong segment length');
          last.summary = summary;
        }),
    };
  }

  async openReader(): Promise<StoreReader> {
    const { bytes, options } = this;
    if (bytes === undefined) throw new Error('nothing was saved');
    let at = 0;
    const readInto = (offset: number, target: Uint8Array): number => {
      const length = Math.min(target.length, options.readBytesMax ?? target.length);
      const piece = bytes.subarray(offset, offset + length);
      target.set(piece);
      return piece.length;
    };
    return {
      byteLength: options.byteLength === false ? undefined : bytes.length,
      read: async (target) => {
        const count = readInto(at, target);
        at += count;
        return count;
      },
      close: async () => {
        this.closed += 1;
      },
      ...(options.readAt === false
        ? {}
        : {
            readAt: async (offset: number, target: Uint8Array) => {
              this.readOffsets.push(offset);
              return readInto(offset, target);
            },
          }),
    };
  }
}
