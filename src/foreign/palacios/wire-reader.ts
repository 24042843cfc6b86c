/** Reads contexts from a connection, piece by piece: nothing is held for a length that was only announced. */
import { CheckpointError } from '../../errors/index.ts';
import { formatError, type Place } from '../../format/bytes.ts';
import { contextCountMax, tagCountMax, valueBytesMax } from '../../limits.ts';
import { GrowingBytes } from '../../util/growing-bytes.ts';
import { keyFrame, type WireItem, wireItem } from './key-frame.ts';
import {
  type PalaciosContext,
  type PalaciosRecord,
  type Parser,
  parseFrom,
  type RecordHead,
} from './record.ts';

/** Where bytes come from: a `Connection`. */
export interface WireSource {
  /** 0: the end. */
  read(target: Uint8Array): Promise<number>;
}

/** More than any head takes. */
const bufferBytes = 64 * 1024;
const pieceBytes = 1024 * 1024;

export class WireReader {
  readonly #source: WireSource;
  readonly #url: string;
  readonly #buffer = new Uint8Array(bufferBytes);
  #start = 0;
  #end = 0;
  #offset = 0;
  #contexts = 0;
  #tags = 0;
  #valueBytes = 0;

  constructor(source: WireSource, url: string) {
    this.#source = source;
    this.#url = url;
  }

  get place(): Place & { readonly store: string } {
    return { store: this.#url, offset: this.#offset };
  }

  /** True when nothing follows: the only end that this protocol has. */
  async isAtEnd(): Promise<boolean> {
    if (this.#start < this.#end) return false;
    this.#start = 0;
    this.#end = await this.#source.read(this.#buffer);
    return this.#end === 0;
  }

  /** The next bytes, at most 64 KiB of them; a view until the next call. Throws `CHKPT_TRUNCATED` at the end. */
  take = async (byteCount: number): Promise<Uint8Array> => {
    if (byteCount > bufferBytes) throw new RangeError(`${byteCount} bytes at once`);
    if (this.#end - this.#start < byteCount) {
      this.#buffer.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
      while (this.#end < byteCount) this.#end += await this.#readSome(this.#buffer.subarray(this.#end));
    }
    this.#start += byteCount;
    this.#offset += byteCount;
    return this.#buffer.subarray(this.#start - byteCount, this.#start);
  };

  /** Fills `target`. */
  async fill(target: Uint8Array): Promise<void> {
    const held = this.#buffer.subarray(this.#start, Math.min(this.#end, this.#start + target.length));
    target.set(held);
    this.#start += held.length;
    for (let done = held.length; done < target.length; ) done += await this.#readSome(target.subarray(done));
    this.#offset += target.length;
  }

  async parse<T>(parser: Parser<T>): Promise<T> {
    return await parseFrom(parser, this.take);
  }

  /** The name in the frame that opens the next context; undefined at the end. */
  async open(): Promise<string | undefined> {
    if (await this.isAtEnd()) return undefined;
    this.#contexts += 1;
    if (this.#contexts > contextCountMax) throw this.#tooMany('contexts', contextCountMax);
    return await this.parse(keyFrame(this.place));
  }

  /** What comes next in a context. Values together are bounded: `dataBytesMax`, default what a checkpoint may have. */
  async next(context: string, dataBytesMax = valueBytesMax - this.#valueBytes): Promise<WireItem> {
    return await this.parse(wireItem({ ...this.place, context }, dataBytesMax));
  }

  /** The next record, which must be this one. Throws `CHKPT_FORMAT`. */
  async expect(context: string, tag: string, dataBytes: number): Promise<void> {
    const item = await this.next(context, Number.MAX_SAFE_INTEGER);
    const isIt = 'record' in item && item.record.tag === tag && item.record.dataBytes === dataBytes;
    if (isIt) return;
    const found =
      'record' in item ? `${item.record.tag}, ${item.record.dataBytes} bytes` : 'the end of the context';
    throw formatError(
      'another record than expected',
      { ...this.place, context, tag },
      {
        expected: `${tag}, ${dataBytes} bytes`,
        actual: found,
      },
    );
  }

  /** Reads the end of a context. Throws `CHKPT_FORMAT` when a record comes. */
  async close(context: string): Promise<void> {
    const item = await this.next(context, Number.MAX_SAFE_INTEGER);
    if ('close' in item) return;
    throw formatError('a record behind the last one', { ...this.place, context, tag: item.record.tag });
  }

  /** All records of a context that is open, and its end. `onClose` is told the name in it. */
  async records(
    name: string,
    onClose: (close: Uint8Array) => void = () => undefined,
  ): Promise<PalaciosContext> {
    const records: PalaciosRecord[] = [];
    for (;;) {
      const item = await this.next(name);
      if ('close' in item) {
        onClose(item.close);
        return { name, records };
      }
      this.#tags += 1;
      if (this.#tags > tagCountMax) throw this.#tooMany('tags', tagCountMax);
      records.push({ tag: item.record.tag, data: await this.#data(item.record) });
    }
  }

  async #data({ dataBytes }: RecordHead): Promise<Uint8Array> {
    this.#valueBytes += dataBytes;
    const bytes = new GrowingBytes(dataBytes);
    while (!bytes.isComplete) {
      const piece = new Uint8Array(Math.min(dataBytes - bytes.length, pieceBytes));
      await this.fill(piece);
      bytes.append(piece);
    }
    return bytes.take();
  }

  async #readSome(target: Uint8Array): Promise<number> {
    const byteCount = await this.#source.read(target);
    if (byteCount > 0) return byteCount;
    throw new CheckpointError('CHKPT_TRUNCATED', 'the connection ended in the middle of a context', {
      details: this.place,
    });
  }

  #tooMany(what: string, max: number): CheckpointError {
    return new CheckpointError('CHKPT_LIMIT', `too many ${what}`, {
      details: { ...this.place, expected: max },
    });
  }
}
