import { describe, expect, test } from 'vitest';
import { DocumentError, keyOf, parseDocument } from '../../bench/document.ts';
import { documentOf, ratioRecord } from './ratio-document.ts';

const sound = documentOf(ratioRecord([0.9, 1, 1.1]));

describe('documents', () => {
  test('what is written is what is read', () => {
    expect(parseDocument(JSON.stringify(sound))).toEqual(sound);
  });

  test.each([
    ['no JSON', '{"schema": "chkpt-bench"'],
    ['another schema', JSON.stringify({ ...sound, schema: 'other' })],
    ['an older version', JSON.stringify({ ...sound, version: 0 })],
    ['a newer version', JSON.stringify({ ...sound, version: 2 })],
    ['no version', JSON.stringify({ ...sound, version: undefined })],
    ['no ratios', JSON.stringify({ ...sound, ratios: undefined })],
    ['a ratio without samples', JSON.stringify({ ...sound, ratios: [{ ...sound.ratios[0], ratios: [] }] })],
    ['a ratio of zero', JSON.stringify({ ...sound, ratios: [{ ...sound.ratios[0], ratios: [1, 0, 1] }] })],
    [
      'a ratio that is no number',
      JSON.stringify({ ...sound, ratios: [{ ...sound.ratios[0], ratios: ['1'] }] }),
    ],
    ['a ratio without runs', JSON.stringify({ ...sound, ratios: [{ ...sound.ratios[0], subject: [] }] })],
    ['an array', '[]'],
    ['nothing', 'null'],
  ])('%s is refused', (_, text) => {
    expect(() => parseDocument(text)).toThrow(DocumentError);
  });

  test('the key of a ratio has every parameter, in any order', () => {
    const [first, second] = [
      { threads: 2, memory: 'm' },
      { memory: 'm', threads: 2 },
    ].map((parameters) => keyOf({ name: 'n', baseline: 'b', parameters }));
    expect(first).toBe(second);
    expect(first).toBe('n b memory=m threads=2');
  });
});
