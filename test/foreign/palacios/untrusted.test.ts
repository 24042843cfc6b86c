/** What a peer, a folder or a handler could do with sizes and endings: bounded before it is decoded, and never half of it taken for all. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import {
  besideContext,
  contentBeside,
  decodeBeside,
  documentBytesMax,
  encodeBeside,
} from '../../../src/foreign/palacios/beside.ts';
import { kindOfContext } from '../../../src/foreign/palacios/check-context.ts';
import { contentOfOriginal, originalOf } from '../../../src/foreign/palacios/original.ts';
import { decodeRecords, type PalaciosContext, RecordBudget } from '../../../src/foreign/palacios/record.ts';
import { apicCountMax, localApicSchema, localApicTagCount } from '../../../src/foreign/palacios/schema.ts';
import { decodeHex, decodeTextContext, encodeTextContext } from '../../../src/foreign/palacios/text.ts';
import { fromPalacios, toPalacios } from '../../../src/foreign/palacios/translate.ts';
import {
  openCheckpoint,
  openPalaciosStore,
  palaciosUserStore,
  verifyCheckpoint,
} from '../../../src/index.ts';
import { tagCountMax, valueBytesMax } from '../../../src/limits.ts';
import { record, type SampleOptions, sampleOriginal, u32, u64, wireOf } from './support/original.ts';
import { originalListens } from './support/peers.ts';

const contextsOf = (skip: SampleOptions['skip'] & {}): PalaciosContext[] =>
  sampleOriginal({ skip }).map(([name, blobs]) => ({
    name,
    records: blobs.map(([tag, data]) => ({ tag, data })),
  }));
const original = contextsOf(['memory']);
const codeOf = (work: () => unknown): string => {
  try {
    work();
    return 'no error';
  } catch (error) {
    return String((error as { code?: unknown }).code ?? error);
  }
};

describe('records', () => {
  test('of all contexts together are at most so many as a checkpoint may have', () => {
    const one = new Uint8Array(record(['a', new Uint8Array()]));
    const budget = new RecordBudget();
    for (let count = 1; count < tagCountMax; count += 1) budget.take({});
    expect(decodeRecords(one, {}, budget)).toHaveLength(1);
    expect(codeOf(() => decodeRecords(one, {}, budget))).toBe('CHKPT_LIMIT');
    expect(codeOf(() => decodeTextContext(Buffer.from('[x]\na=\n'), 'x', {}, budget))).toBe('CHKPT_LIMIT');
  });

  test('as text come back whole where they are longer than a piece, and a wrong digit is found in each', () => {
    const data = new Uint8Array(Buffer.alloc(1_300_001, 0xa7));
    const file = new Uint8Array(
      Buffer.concat(encodeTextContext({ name: 'x', records: [{ tag: 't', data }] })),
    );
    expect(file).toHaveLength('[x]\nt=\n'.length + 2 * data.length);
    const [back] = decodeTextContext(file, 'x', {});
    expect(Buffer.compare(back?.data ?? new Uint8Array(), data)).toBe(0);
    for (const at of [6, 1_048_581, 1_048_582, file.length - 2]) {
      const broken = file.slice();
      broken[at] = 'g'.charCodeAt(0);
      expect(codeOf(() => decodeTextContext(broken, 'x', {}))).toBe('CHKPT_FORMAT');
    }
    expect(codeOf(() => decodeHex(new Uint8Array(2 * valueBytesMax + 2), {}))).toBe('CHKPT_LIMIT');
  });

  test('that announce many APICs are no APICs without theirs', () => {
    expect(localApicSchema(3)).toHaveLength(localApicTagCount(3));
    const announced = { tag: 'NUM_APICS', data: u32(apicCountMax) };
    expect(kindOfContext({ name: 'apic', records: [announced] })).toBeUndefined();
    const records = localApicSchema(2).map(([tag, bytes]) => ({
      tag,
      data: new Uint8Array(bytes) as Uint8Array,
    }));
    records[0] = { tag: 'NUM_APICS', data: u32(2) };
    expect(kindOfContext({ name: 'apic', records })).toBe('local APICs');
  });
});

describe('contexts of chkpt', () => {
  test('are not parsed when their document is too long', () => {
    const records = [
      { tag: 'bytes', data: u64(documentBytesMax + 1) },
      { tag: 'document', data: new Uint8Array(documentBytesMax + 1) },
      { tag: 'sha256', data: new Uint8Array(32) },
    ];
    expect(codeOf(() => decodeBeside({ name: besideContext, records }))).toBe('CHKPT_LIMIT');
  });

  test('come once, as all contexts', () => {
    const content = contentOfOriginal({ contexts: original, blocks: undefined }, new Uint8Array());
    const extra = { name: 'note', tags: [{ name: 't', type: 'bytes' as const, data: u32(1) }] };
    const more = { ...content, contexts: [...content.contexts, extra] };
    const { contexts } = toPalacios(more, undefined, undefined);
    const note = contexts.find(({ name }) => name === 'chkpt.note') as PalaciosContext;
    const wrong = { name: note.name, records: [{ tag: 't', data: u32(2) }] };
    const taken = (all: readonly PalaciosContext[]): string =>
      codeOf(() => fromPalacios({ contexts: [...all], blocks: undefined }, new Uint8Array()));
    expect(taken(contexts)).toBe('no error');
    expect(taken([wrong, ...contexts])).toBe('CHKPT_FORMAT');
    expect(taken([...contexts, contexts.at(-1) as PalaciosContext])).toBe('CHKPT_FORMAT');
  });

  test('are not taken for contexts of the same name that the checkpoint has', () => {
    const contexts = contextsOf(['memory', 'devices']);
    const content = contentOfOriginal({ contexts, blocks: undefined }, new Uint8Array());
    expect(originalOf(content)).toBeDefined();
    const note = { name: 'chkpt.note', tags: [{ name: 't', type: 'bytes' as const, data: u32(1) }] };
    // Where the context of a device stands in an original.
    const at = content.contexts.findIndex(({ name }) => /^guest_info/.test(name));
    const more = { ...content, contexts: content.contexts.toSpliced(at, 0, note) };
    expect(originalOf(more)).toBeUndefined();
    const [index, ...own] = encodeBeside(more, undefined) as [PalaciosContext, ...PalaciosContext[]];
    expect(contentBeside(decodeBeside(index), own).contexts).toEqual(more.contexts);
  });
});

describe('a connection', () => {
  /** How it ends for the peer. */
  const endOf = async (socket: Socket): Promise<string> => {
    socket.resume();
    return await new Promise((resolve) => {
      socket.once('end', () => resolve('end'));
      socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    });
  };

  test.each(['a deadline', 'an abort'])('of a receiver ends with a reset behind %s', async (what) => {
    let told: (url: string) => void = () => undefined;
    const url = new Promise<string>((resolve) => {
      told = resolve;
    });
    const stop = new AbortController();
    const idleMs = what === 'a deadline' ? 100 : 0;
    const store = openPalaciosStore('palacios+net:a:127.0.0.1:0', { idleMs, onListening: told });
    const receiving = verifyCheckpoint(store, { signal: stop.signal });
    const outcome = expect(receiving).rejects.toMatchObject({
      code: what === 'a deadline' ? 'CHKPT_TIMEOUT' : 'CHKPT_ABORTED',
    });
    const socket = connect(Number((await url).split(':').at(-1)), '127.0.0.1');
    const ended = endOf(socket);
    await once(socket, 'connect');
    socket.write(wireOf(['header', [['header', u32(1)]]]).subarray(0, 10));
    if (what === 'an abort') setTimeout(() => stop.abort(), 100);
    await outcome;
    expect(await ended).toBe('ECONNRESET');
  });

  test('of a sender that gives up ends with a reset: a part is not a whole checkpoint', async () => {
    const { url, result } = await originalListens(endOf);
    const checkpoint = await openCheckpoint(openPalaciosStore(url), { mode: 'save' });
    const context = await checkpoint.openContext('pic');
    await context.save('irr', 7);
    await context.close();
    await checkpoint.abort();
    expect(await result).toBe('ECONNRESET');
  });
});

describe('a handler of user:', () => {
  test.each(['save', 'load'] as const)('that never answers does not hold an aborted %s', async (mode) => {
    const stop = new AbortController();
    let asked = 0;
    const store = palaciosUserStore(() => {
      asked += 1;
      setTimeout(() => stop.abort(), 20);
      return new Promise<Uint8Array>(() => undefined);
    });
    const work =
      mode === 'load'
        ? verifyCheckpoint(store, { signal: stop.signal })
        : (async () => {
            const checkpoint = await openCheckpoint(store, { mode, signal: stop.signal });
            const context = await checkpoint.openContext('pic');
            await context.save('irr', 7);
            await context.close();
            await checkpoint.commit();
          })();
    await expect(work).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
    expect(asked).toBe(1);
  });

  test('that has a core of every number is CHKPT_LIMIT', async () => {
    let handles = 0n;
    const names = new Map<bigint, string>();
    const store = palaciosUserStore((bytes) => {
      const request = Buffer.from(bytes);
      const type = request.readInt32LE(8);
      const xfer = Number(request.readBigInt64LE(16));
      let handle = request.readBigUInt64LE(24);
      if (type === 3) {
        const name = request.subarray(48, 48 + Number(request.readBigUInt64LE(32)) - 1).toString('latin1');
        const has = name === 'header' || name.startsWith('guest_info');
        handle = has ? ++handles : 0n;
        names.set(handle, name);
      }
      const data =
        type === 6 ? Buffer.alloc(xfer, names.get(handle) === 'header' ? 0x78 : 0) : Buffer.alloc(0);
      const answer = Buffer.alloc(48 + data.length);
      request.copy(answer, 0, 0, 48);
      answer.writeBigUInt64LE(BigInt(answer.length), 0);
      answer.writeBigUInt64LE(handle, 24);
      answer.writeBigUInt64LE(BigInt(data.length), 32);
      answer.writeBigUInt64LE(0n, 40);
      data.copy(answer, 48);
      return answer;
    });
    await expect(verifyCheckpoint(store)).rejects.toMatchObject({ code: 'CHKPT_LIMIT' });
    expect(handles).toBeLessThan(300n);
  });
});
