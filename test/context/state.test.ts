import { beforeAll, describe, expect, expectTypeOf, it } from 'vitest';
import { openCheckpoint } from '../../src/context/checkpoint.ts';
import {
  array,
  bool,
  bytes,
  defineState,
  f32,
  f64,
  i8,
  i16,
  i32,
  i64,
  openState,
  type StateDefinition,
  type StateOf,
  string,
  struct,
  type TypedTags,
  u8,
  u16,
  u32,
  u64,
  vector,
} from '../../src/context/state.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import type { TypedValue } from '../../src/format/value.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import { TestStore } from '../support/test-store.ts';

let digest: Digest64;
beforeAll(async () => {
  digest = await createWasmDigest64();
});

const everything = defineState({
  a: u8,
  b: u16,
  c: u32,
  d: u64,
  e: i8,
  f: i16,
  g: i32,
  h: i64,
  i: f32,
  j: f64,
  k: bool,
  l: string,
  m: bytes(),
  n: bytes(3),
  o: vector(u16, 2),
  p: vector(i64),
  q: vector(bool, 2),
  r: array(2, u8),
  s: array(2, array(2, { x: i8 })),
  t: struct({ y: bool, z: { deep: f64 } }),
  u: { plain: u8 },
});

const value: StateOf<typeof everything> = {
  a: 255,
  b: 65_535,
  c: 2 ** 32 - 1,
  d: 2n ** 64n - 1n,
  e: -128,
  f: -32_768,
  g: -(2 ** 31),
  h: -(2n ** 63n),
  i: 0.5,
  j: Math.PI,
  k: true,
  l: 'ß\ufeff',
  m: Uint8Array.of(1, 2),
  n: Uint8Array.of(1, 2, 3),
  o: Uint16Array.of(1, 65_535),
  p: BigInt64Array.of(-1n),
  q: [true, false],
  r: [1, 2],
  s: [
    [{ x: 1 }, { x: -2 }],
    [{ x: 3 }, { x: -4 }],
  ],
  t: { y: false, z: { deep: -0 } },
  u: { plain: 9 },
};

/** Saves with one definition and loads with another. */
async function transfer<T, U>(from: StateDefinition<T>, saved: T, to: StateDefinition<U>): Promise<U> {
  const store = new TestStore();
  await using saving = await openCheckpoint(store, { mode: 'save', digest });
  const target = await saving.openContext('pit');
  await target.save(from, saved);
  await target.close();
  await saving.commit();
  await using checkpoint = await openCheckpoint(store, { mode: 'load', digest });
  return await (await checkpoint.openContext('pit')).load(to);
}

describe('one definition', () => {
  it('saves and loads every kind of field', async () => {
    expect(await transfer(everything, value, everything)).toEqual(value);
  });

  it('names nested fields by their path, in order', () => {
    expect(everything.leaves.slice(-9).map(({ tag }) => tag)).toEqual([
      ...['r[0]', 'r[1]', 's[0][0].x', 's[0][1].x', 's[1][0].x', 's[1][1].x'],
      ...['t.y', 't.z.deep', 'u.plain'],
    ]);
    const pit = defineState({ channels: array(3, { mode: u8, latch: u16 }) }, { prefix: 'pit.' });
    expect(pit.leaves.map(({ tag }) => tag)).toEqual([
      'pit.channels[0].mode',
      'pit.channels[0].latch',
      'pit.channels[1].mode',
      'pit.channels[1].latch',
      'pit.channels[2].mode',
      'pit.channels[2].latch',
    ]);
  });

  it('gives the type of the object', () => {
    const pit = defineState({
      counter: u64,
      channels: array(3, { mode: u8, name: string }),
      ram: vector(u16, 4),
    });
    expectTypeOf<StateOf<typeof pit>>().toEqualTypeOf<{
      counter: bigint;
      channels: { mode: number; name: string }[];
      ram: Uint16Array;
    }>();
  });

  it('saves from class instances and leaves their other properties alone', async () => {
    class Pit {
      counter = 7n;
      timer = setTimeout(() => undefined, 0);
      get mode(): number {
        return 3;
      }
    }
    const pit = new Pit();
    clearTimeout(pit.timer);
    const definition = defineState({ counter: u64, mode: u8 });
    expect(await transfer(definition, pit, definition)).toEqual({ counter: 7n, mode: 3 });
  });

  it.each([
    ['an integer out of range', { a: 256 }, 'CHKPT_VALUE_RANGE'],
    ['bytes of another length', { n: Uint8Array.of(1) }, 'CHKPT_VALUE_RANGE'],
    ['a vector of another length', { o: Uint16Array.of(1) }, 'CHKPT_VALUE_RANGE'],
    ['an array of another length', { r: [1] }, 'CHKPT_VALUE_RANGE'],
  ])('refuses to save %s, and then saves nothing', async (_what, change, code) => {
    const store = new TestStore();
    await using saving = await openCheckpoint(store, { mode: 'save', digest });
    await using context = await saving.openContext('pit');
    const [tag] = Object.keys(change);
    const details = { store: store.url, context: 'pit', tag };
    await expect(context.save(everything, { ...value, ...change })).rejects.toMatchObject({ code, details });
    await context.save(everything, value);
  });

  it.each([
    { a: undefined },
    { a: '1' },
    { d: 1 },
    { m: 'text' },
    { s: [[{ x: 1 }, { x: 2 }], null] },
    { t: undefined },
    { t: 5 },
  ])('refuses to save %o with a TypeError', (change) => {
    expect(() => everything.encode({ ...value, ...change } as never)).toThrow(TypeError);
  });
});

describe('loading with another definition', () => {
  const saved = defineState({ counter: u32, name: string, ram: bytes() });
  const object = { counter: 5, name: 'pit', ram: Uint8Array.of(1, 2, 3, 4) };

  it.each([
    [
      'a missing tag',
      defineState({ counter: u32, name: string, ram: bytes(), mode: u8 }),
      'CHKPT_NO_TAG',
      'mode',
    ],
    ['another type', defineState({ counter: i32, name: string, ram: bytes() }), 'CHKPT_TAG_TYPE', 'counter'],
    [
      'bytes for a vector',
      defineState({ counter: u32, name: string, ram: vector(u8) }),
      'CHKPT_TAG_TYPE',
      'ram',
    ],
    ['another length', defineState({ counter: u32, name: string, ram: bytes(5) }), 'CHKPT_TAG_LENGTH', 'ram'],
    ['an unknown tag', defineState({ counter: u32, name: string }), 'CHKPT_TAG_UNKNOWN', 'ram'],
  ] as [string, StateDefinition<unknown>, string, string][])(
    'refuses %s',
    async (_what, definition, code, tag) => {
      await expect(transfer(saved, object, definition)).rejects.toMatchObject({
        code,
        details: { store: 'test:store', context: 'pit', tag },
      });
    },
  );

  it('passes over unknown tags when it is not strict', async () => {
    const loose = defineState({ counter: u32 }, { strict: false });
    expect(await transfer(saved, object, loose)).toEqual({ counter: 5 });
  });
});

describe('parts of one context', () => {
  const pci = defineState({ command: u16, bars: array(2, u32) }, { prefix: 'pci.' });
  const card = defineState({ ring: u32 }, { prefix: 'card.' });

  it('share it by their prefixes', async () => {
    const store = new TestStore();
    await using saving = await openCheckpoint(store, { mode: 'save', digest });
    const context = await saving.openContext('nic');
    await context.save(pci, { command: 7, bars: [1, 2] });
    await context.save(card, { ring: 9 });
    await context.close();
    await saving.commit();
    await using checkpoint = await openCheckpoint(store, { mode: 'load', digest });
    await using nic = await checkpoint.openContext('nic');
    expect(await nic.load(card)).toEqual({ ring: 9 });
    expect(await nic.load(pci)).toEqual({ command: 7, bars: [1, 2] });
    const strict = defineState({ command: u16 }, { prefix: 'pci.', strict: true });
    await expect(nic.load(strict)).rejects.toMatchObject({
      code: 'CHKPT_TAG_UNKNOWN',
      details: { tag: 'pci.bars[0]' },
    });
    const owner = defineState({ ring: u32 }, { prefix: 'card.', strict: true });
    expect(await nic.load(owner)).toEqual({ ring: 9 });
  });
});

describe('a state whose tags are not known beforehand', () => {
  it('comes back with its types, all of it or what its prefix owns', async () => {
    const values: TypedTags = new Map<string, TypedValue>([
      ['1.0', { type: 'i32', value: -1 }],
      ['shape', { type: 'string', value: '[[1]]' }],
      ['2', { type: 'u16[]', value: Uint16Array.of(1, 2) }],
    ]);
    const store = new TestStore();
    await using saving = await openCheckpoint(store, { mode: 'save', digest });
    const context = await saving.openContext('device');
    await context.save(openState({ prefix: 'a:' }), values);
    await context.save(openState({ prefix: 'b:' }), new Map([['', { type: 'u8', value: 7 }]]));
    await expect(
      context.save(openState(), new Map([['a/b', { type: 'u8', value: 1 }]])),
    ).rejects.toMatchObject({
      code: 'CHKPT_NAME',
    });
    await expect(
      context.save(openState(), new Map([['c', { type: 'u8', value: 256 }]])),
    ).rejects.toMatchObject({
      code: 'CHKPT_VALUE_RANGE',
    });
    await context.close();
    await saving.commit();
    await using checkpoint = await openCheckpoint(store, { mode: 'load', digest });
    await using loaded = await checkpoint.openContext('device');
    expect(await loaded.load(openState({ prefix: 'a:' }))).toEqual(values);
    expect([...(await loaded.load(openState())).keys()]).toEqual(['a:1.0', 'a:shape', 'a:2', 'b:']);
    expect(await loaded.load(openState({ prefix: 'none' }))).toEqual(new Map());
  });
});

describe('a definition that cannot be', () => {
  it('is refused when it is made', () => {
    expect(() => defineState({ 'a/b': u8 })).toThrow(expect.objectContaining({ code: 'CHKPT_NAME' }));
    expect(() => defineState({ [`${'x'.repeat(256)}`]: u8 })).toThrow(
      expect.objectContaining({ code: 'CHKPT_NAME' }),
    );
    expect(() => defineState({ 'a.b': u8, a: { b: u8 } })).toThrow(TypeError);
    expect(() => defineState({ a: undefined as never })).toThrow(TypeError);
    expect(() => vector(string as never)).toThrow(TypeError);
    expect(() => array(-1, u8)).toThrow(RangeError);
    expect(() => bytes(0.5)).toThrow(RangeError);
    expect(() => array(2 ** 30, u8)).toThrow(RangeError);
    expect(() => defineState({ a: array(2000, array(2000, u8)) })).toThrow(RangeError);
  });
});
