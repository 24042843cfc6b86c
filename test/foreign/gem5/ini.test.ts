import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CheckpointError } from '../../../src/errors/index.ts';
import { IniDocument, parseIni, serializeIni } from '../../../src/foreign/gem5/ini.ts';
import { SectionReader } from '../../../src/foreign/gem5/values.ts';
import { type Reading, readAsConfigParser, readAsGem5 } from './consumers.ts';

const sampleCount = 150;

function reading(document: IniDocument): Reading {
  return Object.fromEntries(
    [...document.sections].map((section) => [
      section.name,
      Object.fromEntries([...section.keys].map((key) => [key, section.get(key) as string])),
    ]),
  );
}

/** What our reader makes of a text; `undefined` when it refuses. Nothing but typed errors. */
function readAsChkpt(text: string): Reading {
  try {
    return reading(parseIni(Buffer.from(text, 'latin1')));
  } catch (error) {
    expect(error).toBeInstanceOf(CheckpointError);
    expect((error as CheckpointError).code).toBe('CHKPT_FORMAT');
    return undefined;
  }
}

const name = fc
  .stringMatching(/^[A-Za-z0-9_.]{1,12}$/)
  .filter((text) => text !== 'DEFAULT' && text !== '__proto__');
const value = fc.stringMatching(/^(?:[!-$&-~](?:[ !-$&-~]{0,20}[!-$&-~])?)?$/);
const documents = fc
  .uniqueArray(fc.tuple(name, fc.uniqueArray(fc.tuple(name, value), { selector: ([key]) => key })), {
    selector: ([section]) => section,
  })
  .map((sections) => {
    const document = new IniDocument(['## checkpoint generated: Thu Jan  1 00:00:00 1970']);
    for (const [section, entries] of sections) {
      const added = document.add(section);
      for (const [key, text] of entries) added.set(key, text);
    }
    return document;
  });

/** Lines that one consumer or the other has a rule of its own for. */
const lines = fc.constantFrom(
  '## a comment',
  '## a=b',
  '# c',
  ';x=1',
  '[a]',
  '[b.c]',
  '[ a ]',
  '[a]x=1',
  '[a',
  '[DEFAULT]',
  '[a]\t',
  '[]',
  '',
  ' ',
  'x=1',
  ' x=2',
  '\tx=3',
  'y = 4',
  'y=5 ',
  'z=6\t',
  'z=7\r',
  'k+=v',
  'k +=v',
  'k:l=m',
  'no equals',
  '=v',
  'e=',
  'p=100%',
  'q=a=b',
  't=a\tb',
  'u\t=1',
  'v=\t1',
  '#w=1',
  'r=\u00e9',
);
const texts = fc.array(lines, { maxLength: 7 }).map((all) => all.join('\n'));

describe('m5.cpt', () => {
  test('what is written, gem5, configparser and chkpt read alike', () => {
    const samples = fc.sample(documents, sampleCount);
    const written = samples.map((document) => Buffer.from(serializeIni(document)).toString('latin1'));
    const parsed = readAsConfigParser(written);
    for (const [index, document] of samples.entries()) {
      const wanted = reading(document);
      const text = written[index] as string;
      expect(readAsGem5(text)).toEqual(wanted);
      expect(parsed[index]).toEqual(wanted);
      expect(readAsChkpt(text)).toEqual(wanted);
    }
  });

  test('what chkpt accepts, gem5 and configparser read as it does', () => {
    const samples = [...fc.sample(texts, 4 * sampleCount), ...edges()];
    const parsed = readAsConfigParser(samples);
    let acceptedCount = 0;
    for (const [index, text] of samples.entries()) {
      const ours = readAsChkpt(text);
      if (ours === undefined) continue;
      acceptedCount += 1;
      expect(readAsGem5(text), JSON.stringify(text)).toEqual(ours);
      expect(parsed[index], JSON.stringify(text)).toEqual(ours);
    }
    expect(acceptedCount).toBeGreaterThan(20);
  });

  test('a file that is not changed is written as it was read, byte for byte', () => {
    const text = '## made: x\n\n[b]\nz = 1\na=2  \n\n[a.c-d]\nk-e=x:y;z\tw\nempty=\nl=1 2 3\n';
    const document = parseIni(Buffer.from(text));
    expect(Buffer.from(serializeIni(document)).toString()).toBe(text);
    document.section('b')?.set('z', '1');
    expect(Buffer.from(serializeIni(document)).toString()).toBe(text);
    document.section('b')?.set('a', '3');
    expect(Buffer.from(serializeIni(document)).toString()).toBe(text.replace('a=2  ', 'a=3'));
  });

  test.each([
    ['carriage returns', '[a]\r\nx=1\r\n'],
    ['a duplicate key', '[a]\nx=1\nx=1\n'],
    ['a duplicate section', '[a]\nx=1\n[a]\ny=1\n'],
    ['a line without =', '[a]\nx\n'],
    ['a comment in a section', '[a]\n## x\n'],
    ['a NUL', '[a]\nx=\0\n'],
    ['a key of all sections', '[DEFAULT]\nx=1\n'],
    ['a line before the first section', 'x=1\n[a]\n'],
  ])('%s is refused', (_what, text) => {
    expect(readAsChkpt(text)).toBeUndefined();
  });

  test.each(['k:l', 'a b', '', '#k', 'k+', 'é', 'k=l'])('a key %j is never written', (key) => {
    expect(() => new IniDocument([]).add('a').set(key, '1')).toThrow(RangeError);
  });

  test.each([' a', 'a\t', 'a\nb', 'a\r', '%', 'é'])('a value %j is never written', (text) => {
    expect(() => new IniDocument([]).add('a').set('k', text)).toThrow(RangeError);
  });
});

describe('numbers of an m5.cpt', () => {
  const section = (text: string): SectionReader => {
    const added = new IniDocument([]).add('a');
    added.set('k', text);
    return new SectionReader(added, {});
  };

  test('every 64-bit number is read as it is written', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (number) => {
        expect(section(String(number)).unsigned('k', 2n ** 64n - 1n)).toBe(number);
      }),
    );
  });

  test.each(['', '-1', '+1', '01', '0x10', '1e3', '12abc', '1.0', '18446744073709551616'])(
    '%j is refused: gem5 would read something else',
    (text) => {
      expect(() => section(text).unsigned('k', 2n ** 64n - 1n)).toThrow(CheckpointError);
    },
  );

  test('lists have exactly the values that are expected', () => {
    expect(section('1 2 3').unsignedList('k', 3, 9n)).toEqual([1n, 2n, 3n]);
    expect(() => section('1 2').unsignedList('k', 3, 9n)).toThrow(CheckpointError);
    expect(() => section('1  2').unsignedList('k', 2, 9n)).toThrow(CheckpointError);
    expect(() => section('1 10').unsignedList('k', 2, 9n)).toThrow(CheckpointError);
  });

  test('only true and false are booleans', () => {
    expect(section('true').boolean('k')).toBe(true);
    for (const text of ['1', 'True', 'yes', ''])
      expect(() => section(text).boolean('k')).toThrow(CheckpointError);
  });
});

/** Each line alone in a section, and each in front of it. */
function edges(): string[] {
  const all = fc.sample(lines, 300);
  return [...new Set(all)].flatMap((line) => [
    `[s]\n${line}\n`,
    `${line}\n[s]\nx=1\n`,
    `[s]\nx=1\n${line}\ny=2`,
  ]);
}
