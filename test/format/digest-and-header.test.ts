import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Digest64 } from '../../src/format/digest.ts';
import { decodeStreamHeader, encodeStreamHeader } from '../../src/format/stream-header.ts';
import { formatUuid, hexOf, parseUuid } from '../../src/format/uuid.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import { StreamBuilder } from '../support/stream-builder.ts';

let digest: Digest64;
beforeAll(async () => {
  digest = await createWasmDigest64();
});

describe('createWasmDigest64', () => {
  it('gives the canonical XXH3-64 of known inputs', () => {
    expect(digest(new Uint8Array())).toBe(0x2d06800538d394c2n);
    expect(digest(Buffer.from('a'))).toBe(0xe6c632b61e964e1fn);
    expect(digest(Buffer.from('abc'))).toBe(0x78af5f94892f3950n);
  });

  it('hashes a view of a larger buffer as its own bytes', () => {
    const large = Uint8Array.from({ length: 1000 }, (_, index) => index * 7);
    expect(digest(large.subarray(13, 777))).toBe(digest(large.slice(13, 777)));
  });
});

describe('UUID', () => {
  it('keeps the byte order of the text form', () => {
    const text = '00112233-4455-6677-8899-aabbccddeeff';
    expect(hexOf(parseUuid(text))).toBe(text.replaceAll('-', ''));
    expect(formatUuid(parseUuid(text.toUpperCase()))).toBe(text);
  });

  it('refuses what is not a UUID with a TypeError', () => {
    for (const text of ['', '00112233445566778899aabbccddeeff', '00112233-4455-6677-8899-aabbccddeefg']) {
      expect(() => parseUuid(text)).toThrow(TypeError);
    }
  });
});

describe('stream header', () => {
  const uuid = 'a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf';
  const parent = { uuid: '00000000-0000-4000-8000-000000000001', root: '12'.repeat(32) };

  it('equals the header that is laid out by hand from the specification', () => {
    const built = new StreamBuilder(digest);
    Object.assign(built.header, {
      parentUuid: parseUuid(parent.uuid),
      parentRoot: new Uint8Array(32).fill(0x12),
      epoch: 7n,
      createdMs: 1_700_000_000_123,
      minor: 1,
    });
    const header = { uuid, parent, epoch: 7n, createdMs: 1_700_000_000_123 };
    const bytes = encodeStreamHeader(header, digest);
    expect(hexOf(bytes)).toBe(hexOf(built.build().slice(0, 128)));
    expect(decodeStreamHeader(bytes, digest)).toEqual({ ...header, minor: 1 });
  });

  it('round-trips every epoch and time', () => {
    fc.assert(
      fc.property(fc.bigInt(1n, 2n ** 64n - 1n), fc.maxSafeNat(), (epoch, createdMs) => {
        const header = { uuid, parent, epoch, createdMs };
        expect(decodeStreamHeader(encodeStreamHeader(header, digest), digest)).toEqual({
          ...header,
          minor: 1,
        });
      }),
    );
  });

  it.each([
    ['an epoch without parent', { epoch: 1n }, RangeError],
    ['a parent without epoch', { parent, epoch: 0n }, RangeError],
    ['an epoch beyond 64 bits', { parent, epoch: 2n ** 64n }, RangeError],
    ['a negative time', { createdMs: -1 }, RangeError],
    ['half a millisecond', { createdMs: 0.5 }, RangeError],
    ['the UUID of nothing', { uuid: '00000000-0000-0000-0000-000000000000' }, TypeError],
    ['the root digest of nothing', { parent: { ...parent, root: '00'.repeat(32) }, epoch: 1n }, TypeError],
    ['a short root digest', { parent: { ...parent, root: '12' }, epoch: 1n }, TypeError],
  ])('with %s is not written', (_what, fields, errorClass) => {
    const header = { uuid, parent: undefined, epoch: 0n, createdMs: 0, ...fields };
    expect(() => encodeStreamHeader(header, digest)).toThrow(errorClass);
  });

  it.each([
    [
      'another magic',
      { magic: Uint8Array.of(0x89, 0x43, 0x4b, 0x50, 0x0a, 0x1a, 0x0a, 0) },
      'CHKPT_BAD_MAGIC',
    ],
    ['another major version', { major: 2 }, 'CHKPT_VERSION'],
    ['another major version with another length', { major: 2, headerBytes: 256 }, 'CHKPT_VERSION'],
    ['another length', { headerBytes: 136 }, 'CHKPT_FORMAT'],
    ['no UUID', { uuid: new Uint8Array(16) }, 'CHKPT_FORMAT'],
    ['flags', { flags: 1 }, 'CHKPT_FORMAT'],
    ['the top flag', { flags: 1n << 63n }, 'CHKPT_FORMAT'],
    ['an epoch without parent', { epoch: 1n }, 'CHKPT_FORMAT'],
    ['a parent without epoch and root', { parentUuid: new Uint8Array(16).fill(1) }, 'CHKPT_FORMAT'],
    [
      'a parent in a stream of 1.0',
      { parentUuid: new Uint8Array(16).fill(1), parentRoot: new Uint8Array(32).fill(1), epoch: 1n },
      'CHKPT_FORMAT',
    ],
    ['a parent root without parent', { parentRoot: new Uint8Array(32).fill(1), epoch: 1n }, 'CHKPT_FORMAT'],
    [
      'a reserved byte',
      { reserved: Uint8Array.from({ length: 16 }, (_, index) => Number(index === 15)) },
      'CHKPT_FORMAT',
    ],
    ['a time beyond 2^53', { createdMs: 1n << 53n }, 'CHKPT_LIMIT'],
  ])('with %s and a right digest is refused', (_what, fields, code) => {
    const built = new StreamBuilder(digest);
    Object.assign(built.header, fields);
    expect(() => decodeStreamHeader(built.build().slice(0, 128), digest)).toThrow(
      expect.objectContaining({ code }),
    );
  });

  it('of a greater minor version is legal', () => {
    const built = new StreamBuilder(digest);
    built.header.minor = 65_535;
    expect(decodeStreamHeader(built.build().slice(0, 128), digest).minor).toBe(65_535);
  });
});
