/** `user:`: messages to a handler, exact bytes, and a handler that answers what it should not. */
import { describe, expect, test } from 'vitest';
import { decodeUserMessage, encodeUserMessage } from '../../../src/foreign/palacios/user-message.ts';
import {
  GuestMemory,
  openCheckpoint,
  openPalaciosStore,
  openStore,
  PageDecoder,
  palaciosUserStore,
  receiveCheckpoint,
  type Store,
  verifyCheckpoint,
} from '../../../src/index.ts';
import { describeForeignStore } from '../../conformance/foreign-store.suite.ts';
import { plainDevices } from './support/devices.ts';
import { devicesOfReferenceHandler, userReadResponse, userWriteRequest } from './support/dumps.ts';
import { fingerprint, useFolder, writeOriginal } from './support/folders.ts';
import { sampleOriginal, samplePage, u32, u64 } from './support/original.ts';
import { committingUserStore, ReferenceHandler } from './support/reference-handler.ts';

const folder = useFolder();
const devices = new Map(
  plainDevices.map(([id, blobs]) => [id, blobs.map(([tag, data]) => [tag, data.length] as const)] as const),
);
const whole = sampleOriginal({ devices: plainDevices });
const regions = [
  { base: 0n, bytes: 1n << 20n },
  { base: 3n << 20n, bytes: 3n << 16n },
];

describe('messages', () => {
  test('have the bytes of the description', () => {
    const write = {
      type: 5,
      transferred: 4,
      handle: 5n,
      dataOffset: 8,
      buffer: Buffer.concat([Buffer.from('num_devs'), u32(2)]),
    } as const;
    expect(encodeUserMessage(write)).toEqual(userWriteRequest);
    expect(decodeUserMessage(userWriteRequest, 'request', {})).toMatchObject({
      ...write,
      buffer: new Uint8Array(write.buffer),
    });
    const read = { type: 6, transferred: 4, handle: 5n, dataOffset: 0, buffer: u32(2) } as const;
    expect(encodeUserMessage(read)).toEqual(userReadResponse);
    expect(decodeUserMessage(userReadResponse, 'response', {})).toEqual(read);
  });

  const poked = (at: number, bytes: Uint8Array): Uint8Array => {
    const copy = userReadResponse.slice();
    copy.set(bytes, at);
    return copy;
  };
  test.each([
    ['shorter than their head', userReadResponse.subarray(0, 47), 'CHKPT_FORMAT'],
    ['with a length above theirs', poked(0, u64(53)), 'CHKPT_FORMAT'],
    ['with a buffer longer than they are', poked(32, u64(5)), 'CHKPT_FORMAT'],
    ['with a buffer of 2^63 bytes', poked(32, u64(2n ** 63n)), 'CHKPT_LIMIT'],
    ['of type 1, which is never used', poked(8, u32(1)), 'CHKPT_FORMAT'],
    ['that transfer less than nothing', poked(16, u64(-2)), 'CHKPT_FORMAT'],
    ['that transfer 2^62 bytes', poked(16, u64(2n ** 62n)), 'CHKPT_FORMAT'],
  ])('%s are a typed error', (_what, bytes, code) => {
    expect(() => decodeUserMessage(bytes, 'response', {})).toThrow(expect.objectContaining({ code }));
  });

  test('that ask may have room behind them, those that answer may not; a tag ends inside the buffer', () => {
    const roomy = userWriteRequest.slice();
    roomy[0] = 200;
    expect(decodeUserMessage(roomy, 'request', {}).transferred).toBe(4);
    roomy[40] = 13;
    expect(() => decodeUserMessage(roomy, 'request', {})).toThrow(
      expect.objectContaining({ code: 'CHKPT_FORMAT' }),
    );
  });
});

await describeForeignStore('user:', { types: true, integrity: 'detect', removes: false, regions }, () => {
  const committed = new ReferenceHandler();
  const open = (): Store => committingUserStore(committed, { blockBytes: 1 << 20 });
  return { open, remains: () => [...committed.files.keys()] };
});

describe('a handler', () => {
  async function keep(groups = whole): Promise<ReferenceHandler> {
    const from = folder.next();
    await writeOriginal(from, 'file', groups);
    const handler = new ReferenceHandler();
    const store = palaciosUserStore(handler.handle, { devices });
    await receiveCheckpoint(openPalaciosStore(`palacios+file:${from}`), store);
    return handler;
  }

  test('keeps an original as the reference handler does', async () => {
    const table = [
      ['8259a', plainDevices[0]?.[1] ?? []],
      ['serial', plainDevices[4]?.[1] ?? []],
    ] as const;
    const handler = await keep(sampleOriginal({ devices: table, skip: ['memory'] }));
    expect(new Uint8Array(handler.files.get('devices') ?? [])).toEqual(devicesOfReferenceHandler);
    expect(handler.openCount).toBe(0);
    expect(handler.requests[0]?.subarray(48).toString()).toBe('devices\0');
  });

  test('gives an original back, memory and contexts', async () => {
    const handler = await keep();
    const store = palaciosUserStore(handler.handle, { devices });
    const checkpoint = await openCheckpoint(store, { mode: 'load' });
    const memory = GuestMemory.allocate([{ base: 0, bytes: 3 * 16_384 }]);
    await checkpoint.loadMemory('memory', () => new PageDecoder(memory));
    for (const [name, blobs] of whole.filter(([one]) => one !== 'memory_img')) {
      const context = await checkpoint.openContext(name);
      for (const [tag, data] of blobs)
        expect(fingerprint(await context.loadBytes(tag)), tag).toBe(fingerprint(data));
      await context.close();
    }
    await checkpoint.finish();
    await checkpoint.close();
    for (let page = 0; page < 12; page += 1) expect(memory.read(page * 4096, 4096)).toEqual(samplePage(page));
    expect(handler.openCount).toBe(0);
    await memory.close();
  });

  test('cannot be asked for devices whose values nobody knows', async () => {
    const handler = await keep();
    await expect(verifyCheckpoint(palaciosUserStore(handler.handle))).rejects.toMatchObject({
      code: 'CHKPT_UNSUPPORTED',
    });
    expect(handler.openCount).toBe(0);
  });

  test('without a checkpoint is CHKPT_NOT_FOUND', async () => {
    await expect(verifyCheckpoint(palaciosUserStore(new ReferenceHandler().handle))).rejects.toMatchObject({
      code: 'CHKPT_NOT_FOUND',
    });
  });

  const liars: [what: string, change: (answer: Buffer, request: Buffer) => Uint8Array, code: string][] = [
    [
      'gives a handle of 0',
      (answer, request) =>
        request.readInt32LE(8) === 3 ? Buffer.concat([answer.subarray(0, 24), Buffer.alloc(24)]) : answer,
      'CHKPT_STORE_FAILED',
    ],
    [
      'says that it wrote less',
      (answer) => Buffer.concat([answer.subarray(0, 16), u64(1), answer.subarray(24)]),
      'CHKPT_STORE_FAILED',
    ],
    [
      'answers something else',
      (answer) => Buffer.concat([answer.subarray(0, 8), u32(6), answer.subarray(12)]),
      'CHKPT_FORMAT',
    ],
    ['answers with half a message', (answer) => answer.subarray(0, 20), 'CHKPT_FORMAT'],
    ['answers with no bytes', () => 'text' as unknown as Uint8Array, 'CHKPT_STORE_FAILED'],
    [
      'throws',
      () => {
        throw new Error('no');
      },
      'CHKPT_STORE_FAILED',
    ],
  ];
  test.each(liars)('that %s ends the save with a typed error', async (_what, change, code) => {
    const handler = new ReferenceHandler();
    const store = palaciosUserStore(async (request) =>
      change(Buffer.from(await handler.handle(request)), Buffer.from(request)),
    );
    const from = folder.next();
    await writeOriginal(from, 'file', sampleOriginal({ skip: ['memory'] }));
    await expect(receiveCheckpoint(openPalaciosStore(`palacios+file:${from}`), store)).rejects.toMatchObject({
      code,
    });
  });

  test('that gives more or less than was asked for ends the load with CHKPT_FORMAT', async () => {
    for (const more of [-1, 1]) {
      const handler = await keep(sampleOriginal({ skip: ['memory'] }));
      const store = palaciosUserStore(async (request) => {
        const answer = Buffer.from(await handler.handle(request));
        if (Buffer.from(request).readInt32LE(8) !== 6 || answer.length <= 49) return answer;
        const longer = more > 0 ? Buffer.concat([answer, Buffer.alloc(1)]) : answer.subarray(0, -1);
        longer.writeBigUInt64LE(BigInt(longer.length), 0);
        longer.writeBigUInt64LE(BigInt(longer.length - 48), 32);
        return longer;
      });
      await expect(receiveCheckpoint(store, openStore('null:'))).rejects.toMatchObject({
        code: 'CHKPT_FORMAT',
      });
    }
  });
});
