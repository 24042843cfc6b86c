/** v86's state as tags and as a file: whatever v86 may hold comes back, and what is forged is refused. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { encodeStateFile, parseStateFile, type StateNode } from '../../src/adapters/v86/state-file.ts';
import { decodeEntry, encodeEntry } from '../../src/adapters/v86/state-tags.ts';
import type { TypedTags, TypedValue } from '../../src/index.ts';

const leaf: fc.Arbitrary<StateNode> = fc.oneof(
  fc.constant(null),
  fc.boolean(),
  fc.integer(),
  fc.double({ noNaN: true }),
  fc.string(),
  fc.uint8Array(),
  fc.int32Array(),
  fc.uint16Array(),
  fc.float64Array({ noNaN: true }),
);
const { node } = fc.letrec<{ node: StateNode }>((tie) => ({
  node: fc.oneof({ maxDepth: 4 }, leaf, fc.array(tie('node'), { maxLength: 5 })),
}));

describe('the state of v86', () => {
  test('an entry comes back from its tags', () => {
    fc.assert(
      fc.property(node, (entry) => {
        expect(decodeEntry('x', encodeEntry(entry), null)).toEqual(entry);
      }),
    );
  });

  test('a state comes back from its file', () => {
    fc.assert(
      fc.property(fc.array(node), fc.nat(), (entries, version) => {
        // JSON knows neither negative zero nor what is not finite, and v86 needs none.
        let isJson = true;
        JSON.stringify(entries, (_, value) => {
          if (typeof value === 'number') isJson &&= Number.isFinite(value) && !Object.is(value, -0);
          return value;
        });
        fc.pre(isJson);
        expect(parseStateFile(new Uint8Array(encodeStateFile({ version, entries })))).toEqual({
          version,
          entries,
        });
      }),
    );
  });

  const tags = (shape: string, ...values: [string, TypedValue][]): TypedTags =>
    new Map<string, TypedValue>([['shape', { type: 'string', value: shape }], ...values]);
  const one: TypedValue = { type: 'i32', value: 1 };

  test.each([
    ['no shape', new Map([['value', one]])],
    ['a shape of another type', new Map<string, TypedValue>([['shape', one]])],
    ['a shape that is no JSON', tags('[1,')],
    ['a shape of other things', tags('{"__proto__":1}')],
    ['a place without a value', tags('[1,1]', ['0', one])],
    ['a value without a place', tags('[1]', ['0', one], ['1', one])],
    ['a type that v86 has not', tags('[1]', ['0', { type: 'u64', value: 1n }])],
    ['nesting without end', tags(`${'['.repeat(1000)}${']'.repeat(1000)}`)],
  ] as [string, TypedTags][])('%s is refused', (_, forged) => {
    expect(() => decodeEntry('pit', forged, null)).toThrow(
      expect.objectContaining({ code: 'CHKPT_VM_DEVICES', details: { context: 'pit' } }),
    );
  });

  test('a list of another length, and a memory of another size, are refused', () => {
    expect(() => decodeEntry('pit', tags('[1]', ['0', one]), [1, 2])).toThrow(/another number of values/);
    const memory: TypedValue = { type: 'u8[]', value: new Uint8Array(65536) };
    expect(() => decodeEntry('vga', tags('[1]', ['0', memory]), [new Uint8Array(131072)])).toThrow(
      /65536 bytes/,
    );
    expect(() => decodeEntry('vga', tags('[1]', ['0', one]), [new Uint8Array(131072)])).toThrow(/131072/);
  });

  test.each([[new Uint8Array(16)], [new Uint8Array(3)]])('what is no state file is refused', (file) => {
    expect(() => parseStateFile(file)).toThrow(expect.objectContaining({ code: 'CHKPT_UNSUPPORTED' }));
  });
});
