/** Records and messages as bytes: what was encoded comes back, and whatever else comes is a typed error and no allocation. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CheckpointError } from '../../src/errors/index.ts';
import { checkpointDigest } from '../../src/memory/digest.ts';
import {
  decodeStreamHead,
  decodeToDestination,
  decodeToSource,
  encodeStreamHead,
  encodeToDestination,
  encodeToSource,
  type ToDestination,
  type ToSource,
} from '../../src/migration/wire/messages.ts';
import { decodeHeader, encodeHeader, recordHeaderBytes } from '../../src/migration/wire/record.ts';
import { type ByteConnection, RecordChannel } from '../../src/migration/wire/record-channel.ts';

const digest = await checkpointDigest();
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const session = fc.integer({ min: 1, max: 2 ** 47 });
const stream = fc.integer({ min: 0, max: 2 ** 31 });

const toDestination: fc.Arbitrary<ToDestination> = fc.oneof(
  fc.record({ type: fc.constant('join' as const), link: bytes(16), index: fc.nat(16), count: fc.nat(16) }),
  fc.record({ type: fc.constant('offer' as const), description: fc.uint8Array({ minLength: 1 }) }),
  fc.record({
    type: fc.constant('end' as const),
    session,
    first: stream,
    count: fc.integer({ min: 1, max: 256 }),
    root: bytes(32),
    runs: fc.boolean(),
    postcopy: fc.boolean(),
  }),
  ...(['commit', 'cancel', 'ask', 'done'] as const).map((type) => fc.constant({ type })),
);
const toSource: fc.Arbitrary<ToSource> = fc.oneof(
  fc.record({ type: fc.constantFrom('accept' as const, 'dropped' as const), session }),
  fc.record({ type: fc.constant('got' as const), session, stream, root: bytes(32) }),
  fc.record({ type: fc.constant('placed' as const), count: fc.nat() }),
  fc.record({
    type: fc.constant('want' as const),
    pages: fc
      .array(fc.nat(2 ** 32), { minLength: 1, maxLength: 40 })
      .map((pages) => Float64Array.from(pages)),
  }),
  fc.record({
    type: fc.constant('reason' as const),
    code: fc.stringMatching(/^[A-Z_]{1,60}$/),
    text: fc.stringMatching(/^[ -~]{0,200}$/),
  }),
  ...(['prepared', 'running', 'complete', 'aborted', 'mayHaveRun'] as const).map((type) =>
    fc.constant({ type }),
  ),
);

/** Decodes, or gives the code of the error; anything else fails. */
function codeOf(decode: () => unknown): string {
  try {
    decode();
    return 'none';
  } catch (error) {
    if (error instanceof CheckpointError) return error.code;
    throw error;
  }
}

describe('messages', () => {
  it('come back as they were', () => {
    fc.assert(
      fc.property(toDestination, (message) => {
        const decoded = decodeToDestination(encodeToDestination(message));
        expect(decoded).toEqual(message);
      }),
    );
    fc.assert(
      fc.property(toSource, (message) => {
        expect(decodeToSource(encodeToSource(message))).toEqual(message);
      }),
    );
  });

  it('that are none are refused, and nothing else happens', () => {
    const some = fc.oneof(
      fc.uint8Array({ maxLength: 100 }),
      // Of a legal one a byte is changed, or it is cut or longer.
      fc
        .tuple(
          fc.oneof(toDestination.map(encodeToDestination), toSource.map(encodeToSource)),
          fc.nat(),
          fc.nat(255),
        )
        .map(([whole, at, value]) => {
          const copy = new Uint8Array(whole.length + (value % 3));
          copy.set(whole);
          copy[at % copy.length] = value;
          return value % 7 === 0 ? copy.subarray(0, at % copy.length) : copy;
        }),
    );
    fc.assert(
      fc.property(some, (message) => {
        for (const decode of [decodeToDestination, decodeToSource, decodeStreamHead]) {
          expect(['none', 'CHKPT_PEER_PROTOCOL']).toContain(codeOf(() => decode(message)));
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('tell people nothing that moves their cursor', () => {
    const decoded = decodeToSource(encodeToSource({ type: 'reason', code: 'X', text: 'a\u001b[2Jb\u202ec' }));
    expect(decoded).toMatchObject({ text: 'a?[2Jb?c' });
  });
});

it('heads of streams come back as they were', () => {
  const head = fc.record({
    session,
    stream,
    kind: fc.constantFrom('memory' as const, 'state' as const),
    round: fc.nat(2 ** 31),
  });
  fc.assert(
    fc.property(head, (one) => {
      expect(decodeStreamHead(encodeStreamHead(one))).toEqual(one);
    }),
  );
});

describe('records', () => {
  it.each([0xff_ff_ff_ff, 2 ** 31, 2 ** 24 + 1, 256 * 1024 + 1])(
    'of %d bytes are refused by their header',
    (length) => {
      const header = encodeHeader('data', 0, digest);
      for (const type of [0, 1, 3, 4, 5, 6, 255, ...(length > 2 ** 24 ? [2] : [])]) {
        const view = new DataView(header.buffer);
        view.setUint32(0, length, true);
        view.setUint16(4, type, true);
        view.setBigUint64(8, digest(header.subarray(0, 8)), true);
        expect(codeOf(() => decodeHeader(header, digest))).toBe('CHKPT_PEER_PROTOCOL');
      }
    },
  );

  it('of which any bit is flipped are noticed', async () => {
    const payload = encodeToDestination({ type: 'commit' });
    const whole = Buffer.concat([encodeHeader('control', payload, digest), payload]);
    for (let bit = 0; bit < 8 * whole.length; bit += 1) {
      const copy = Uint8Array.from(whole);
      copy[bit >> 3] = (copy[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      await expect(new RecordChannel(connectionOf(copy), digest).next()).rejects.toMatchObject({
        code: expect.stringMatching(/^CHKPT_(PEER_PROTOCOL|LINK_LOST)$/),
      });
    }
    expect(await new RecordChannel(connectionOf(whole), digest).next()).toEqual({ type: 'control', payload });
    expect(recordHeaderBytes).toBe(16);
  });
});

/** Gives these bytes, and then the end. */
function connectionOf(all: Uint8Array): ByteConnection {
  let at = 0;
  return {
    idleMs: 0,
    bytesWritten: 0,
    closed: new Promise(() => undefined),
    writeAll: async () => undefined,
    read: async (target) => {
      const piece = all.subarray(at, at + target.length);
      target.set(piece);
      at += piece.length;
      return piece.length;
    },
    end: async () => undefined,
    destroy: () => undefined,
  };
}
