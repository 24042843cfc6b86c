/** Which store and which path a URL means. */
import { describe, expect, test } from 'vitest';
import { directoryPath, filePath, isScheme, parseStoreUrl } from '../../src/store/url.ts';

describe('parseStoreUrl', () => {
  test.each([
    ['mem:a', 'mem', 'a'],
    ['MEM:A', 'mem', 'A'],
    ['palacios+file:/x:y', 'palacios+file', '/x:y'],
    ['s3://bucket/key', 's3', '//bucket/key'],
    ['file:', 'file', ''],
    ['vm.chkpt', 'file', 'vm.chkpt'],
    ['./a:b', 'file', './a:b'],
    ['../a:b', 'file', '../a:b'],
    ['/tmp/a:b', 'file', '/tmp/a:b'],
    ['dir/a:b', 'file', 'dir/a:b'],
    ['c:x', 'file', 'c:x'],
    [':x', 'file', ':x'],
    ['1a:x', 'file', '1a:x'],
    ['my vm:x', 'file', 'my vm:x'],
    ['-', 'fd', '-'],
  ])('%s is the store %s with %s', (url, scheme, rest) => {
    expect(parseStoreUrl(url)).toEqual({ scheme, rest });
  });

  test('an empty URL is CHKPT_STORE_URL, anything but a string a TypeError', () => {
    expect(() => parseStoreUrl('')).toThrow(expect.objectContaining({ code: 'CHKPT_STORE_URL' }));
    expect(() => parseStoreUrl(undefined as unknown as string)).toThrow(TypeError);
    expect(() => parseStoreUrl(new URL('file:///x') as unknown as string)).toThrow(TypeError);
  });
});

test('a scheme is a letter and then letters, digits, plus, dot or minus, at least two characters', () => {
  expect(['ab', 'A1', 's3', 'a+b', 'a.b', 'a-b'].filter(isScheme)).toHaveLength(6);
  expect(['a', '', '1a', '+a', 'a b', 'a/b', 'a:', 'ä1', 7, undefined].filter(isScheme)).toEqual([]);
});

describe('filePath', () => {
  test.each([
    ['/tmp/vm.chkpt', '/tmp/vm.chkpt'],
    ['vm.chkpt', `${process.cwd()}/vm.chkpt`],
    ['./vm.chkpt', `${process.cwd()}/./vm.chkpt`],
    ['../vm.chkpt', `${process.cwd()}/../vm.chkpt`],
    ['/link/../vm', '/link/../vm'],
    ['/tmp/100%25', '/tmp/100%25'],
    ['///tmp/a%20b%25', '/tmp/a b%'],
    ['//localhost/tmp/x', '/tmp/x'],
    ['///tmp/%C3%BC', '/tmp/ü'],
    ['...', `${process.cwd()}/...`],
  ])('%s is %s', (rest, path) => {
    expect(filePath(rest, `file:${rest}`)).toBe(path);
  });

  test.each([
    '',
    '/',
    '.',
    '..',
    '/tmp/',
    '/tmp/.',
    '/tmp/..',
    'a\0b',
    '///tmp/a%00b',
    '///tmp/a%2Fb',
    '///tmp/%',
    '///tmp/%FF',
    '///tmp/a?b',
    '///tmp/a#b',
    '//host/tmp/x',
    '//',
  ])('%j is CHKPT_STORE_URL', (rest) => {
    expect(() => filePath(rest, `file:${rest}`)).toThrow(
      expect.objectContaining({ code: 'CHKPT_STORE_URL' }),
    );
  });
});

describe('directoryPath', () => {
  test.each([
    ['/ckpt/vm', '/ckpt/vm'],
    ['/ckpt/vm//', '/ckpt/vm'],
    ['vm/', `${process.cwd()}/vm`],
    ['///ckpt/a%20b', '/ckpt/a b'],
  ])('%s is %s', (rest, path) => {
    expect(directoryPath(rest, `dir:${rest}`)).toBe(path);
  });

  test.each(['', '/', '//', 'a\0b'])('%j is CHKPT_STORE_URL', (rest) => {
    expect(() => directoryPath(rest, `dir:${rest}`)).toThrow(
      expect.objectContaining({ code: 'CHKPT_STORE_URL' }),
    );
  });
});
