/** The pure parts of the command line: arguments, units, text, progress lines. Nothing is opened and no process is started. */
import { describe, expect, test, vi } from 'vitest';
import { commands } from '../../src/cli/command-table.ts';
import { matchOutputs, parseMemoryArguments, sortRegions } from '../../src/cli/memory-argument.ts';
import { printable } from '../../src/cli/printable.ts';
import { progressLine, RateMeter } from '../../src/cli/progress.ts';
import { failureOf } from '../../src/cli/report-error.ts';
import { runCommandLine } from '../../src/cli/run.ts';
import { parseStateArguments, placeStates, splitState } from '../../src/cli/state-argument.ts';
import { formatBytes, formatBytesExactly, formatClock, formatDuration } from '../../src/cli/units.ts';
import { valueContent, valueJson, valuePreview } from '../../src/cli/value-text.ts';
import { CheckpointError, type ErrorCode, errorTable } from '../../src/errors/index.ts';

/** Exit code and standard error of a command line that is refused before anything is opened. */
async function refusal(words: readonly string[]): Promise<{ code: number; line: string }> {
  const written: string[] = [];
  const spy = vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    written.push(String(text));
    return true;
  });
  try {
    return { code: await runCommandLine(words), line: written.join('') };
  } finally {
    spy.mockRestore();
  }
}

const save = ['save', '--memory', '/no/ram.img'];
const uuid = '3d0a7a0e-5a3f-4e0c-9df1-6f3f5c0e8a11';

test.each<[words: string[], line: RegExp]>([
  [
    [],
    /a command is missing: save, load, info, ls, cat, verify, flatten, convert, diff, prune, gc, receive, send, resume, migrations; see chkpt --help/,
  ],
  [['sav'], /unknown command sav; did you mean save\?/],
  [['lso'], /did you mean ls\?/],
  [['frobnicate'], /unknown command frobnicate; see/],
  [['-x', 'save'], /unknown option -x: the command comes first/],
  [['help', 'nothing'], /unknown command nothing/],
  [['completion'], /completion takes one of bash, zsh, fish/],
  [['completion', 'tcsh'], /completion takes one of bash, zsh, fish/],
  ...['bench'].map((word): [string[], RegExp] => [
    [word, 'a', 'b'],
    new RegExp(`chkpt ${word} is not available in this version`),
  ]),
  [
    ['save', '--qemu', 'qmp.sock', '--memory', 'ram', 'x'],
    /--qemu and --memory exclude each other; see chkpt save --help/,
  ],
  [['load', 'x', '--qemu=qmp.sock', '--state', 'a.b=c'], /--qemu and --state exclude each other/],
  [['load', 'x', '--qemu='], /--qemu needs a value: --qemu SOCKET/],
  [['load', 'x', '--paused'], /--paused goes with --qemu/],
  [[...save, '--copy-memory', 'x'], /--copy-memory goes with --qemu/],
  [[...save, '--skip', 'memory', '--parent', 'file:a', 'x'], /--parent and --skip memory exclude each other/],
  [['save', '--qemu=s', '--skip=memory', '--parent=a', 'x'], /--parent and --skip memory exclude each other/],
  [[...save, '--parent', 'mem:a', 'x'], /a mem: checkpoint ends with its process/],
  [['verify', '--alone', '--parent', 'a', 'x'], /--alone and --parent exclude each other/],
  [['send', '--qemu', 's'], /ADDRESS is missing: chkpt send --qemu SOCKET ADDRESS/],
  [['send', 'unix:/a'], /--qemu SOCKET or --memory RAMFILE is missing/],
  [['send', '--qemu', 's', 'file:a'], /tcp:\/\/HOST:PORT, tls:\/\/HOST:PORT or unix:PATH is expected/],
  [['send', '--qemu', 's', '--streams', '17', 'unix:/a'], /--streams 17: a number from 1 to 16/],
  [['send', '--qemu', 's', '--bandwidth', '1.5M', 'unix:/a'], /--bandwidth 1.5M: bytes per second/],
  [['send', '--qemu', 's', '--delta-cache', '1.5G', 'unix:/a'], /--delta-cache 1.5G: bytes are expected/],
  [['send', '--qemu', 's', '--downtime', '0', 'unix:/a'], /--downtime 0: a number above 0/],
  [
    ['receive', 'unix:/a'],
    /STORE is missing: chkpt receive ADDRESS STORE, or --memory OUTFILE, or --qemu SOCKET/,
  ],
  [['receive', 'unix:/a', 'file:b', '--qemu', 's'], /--qemu and --memory take one machine, and no STORE/],
  [['receive', 'unix:/a', 'file:b', '--witness', 'w'], /--witness goes with --memory and --qemu/],
  [['send', '--qemu', 's', '--window', '100', 'unix:/a'], /--window goes with --plan/],
  [['send', '--qemu', 's', '--plan', '--window', '49', 'unix:/a'], /--window 49: 50 to 60000 milliseconds/],
  [['send', '--qemu', 's', '--plan', '--window', '1s', 'unix:/a'], /--window 1s: a number above 0/],
  [['resume'], /ID is missing: chkpt resume ID/],
  [['resume', '../x'], /\.\.\/x: the UUID of a migration is expected/],
  [['resume', uuid, '--at', 'file:x'], /--at file:x: tcp:\/\/HOST:PORT/],
  [['migrations', '--prune', '--forget', uuid], /--prune and --forget exclude each other/],
  [['migrations', '--older', '1'], /--older goes with --prune/],
  [['migrations', '--prune', '--older', '1d'], /--older 1d: a number of hours/],
  [['migrations', '--forget', 'x'], /x: the UUID of a migration is expected/],
  [['migrations', 'x'], /takes no further argument: x/],
  [['save'], /STORE is missing: chkpt save --memory/],
  [['save', 'x'], /--memory RAMFILE or --qemu SOCKET is missing; .* --skip memory/],
  [['verify', 'x', 'y'], /takes no further argument: y/],
  [[...save, 'x', 'x'], /the same store twice: x/],
  [['cat', 'x', 'context'], /TAG is missing/],
  [[...save, '--memroy', 'x', 'y'], /has no option --memroy; did you mean --memory\?/],
  [[...save, '-z', 'y'], /has no option -z/],
  [['save', '--memory'], /--memory needs a value: --memory RAMFILE/],
  [['save', '--memory', '--json', 'x'], /--memory needs a value.*write --memory=--json/],
  [['save', '--memory=', 'x'], /--memory needs a value/],
  [[...save, '--json=yes', 'x'], /--json takes no value/],
  [[...save, '--threads', '0', 'x'], /--threads 0: a number from 1 to 64/],
  [[...save, '--threads', '65', 'x'], /--threads 65/],
  [[...save, '--threads', '2.5', 'x'], /--threads 2\.5/],
  [[...save, '--threads', '0x2', 'x'], /--threads 0x2/],
  [[...save, '--codec', 'zstd', 'x'], /--codec zstd: not one of auto, raw, lz4/],
  [[...save, '--codec', 'lz5', 'x'], /did you mean lz4\?/],
  [[...save, '--skip', 'core', 'x'], /--skip core: not one of .* did you mean cores\?/],
  [[...save, '--uuid', '123', 'x'], /--uuid 123: a UUID other than zero/],
  [[...save, '--uuid', '00000000-0000-0000-0000-000000000000', 'x'], /a UUID other than zero/],
  [[...save, '--time', 'yesterday', 'x'], /--time yesterday: an ISO 8601 time/],
  [[...save, '--time', '2025-02-30T00:00:00Z', 'x'], /an ISO 8601 time/],
  [[...save, '--time', '2025-01-31T12:00:00', 'x'], /an ISO 8601 time/],
  [[...save, '--time', '1969-12-31', 'x'], /an ISO 8601 time/],
  [['info', 'x', '--threads', 'many'], /--threads many/],
  [['save', '--memory', '@4G', 'x'], /the file is missing/],
  [['save', '--memory', 'a@b', 'x'], /b is no address .* write a@b@0/],
  [['save', '--memory', 'a@', 'x'], /nothing is no address/],
  [['save', '--memory', 'a@-4096', 'x'], /is no address/],
  [['save', '--memory', 'a@4GB', 'x'], /4GB is no address/],
  [['save', '--memory', 'a@1', 'x'], /no multiple of 4096/],
  [['save', '--memory', 'a@0x10000000000000', 'x'], /not below 0x10000000000000/],
  [[...save, '--state', 'pic.irr', 'x'], /CONTEXT\.TAG=FILE is expected/],
  [[...save, '--state', '=f', 'x'], /CONTEXT\.TAG=FILE is expected/],
  [[...save, '--state', 'pic.irr=', 'x'], /CONTEXT\.TAG=FILE is expected/],
  [[...save, '--state', 'pic=f', 'x'], /pic is not CONTEXT\.TAG/],
  [[...save, '--state', 'pic.=f', 'x'], /pic\. is not CONTEXT\.TAG/],
  [[...save, '--state', 'a.b=-', '--state', 'a.c=-', 'x'], /the standard stream serves one value only/],
  [[...save, '--state', 'a.b=f', '--state', 'a.b=g', 'x'], /the tag is given twice/],
  [[...save, '--state', 'memory.x=f', 'x'], /chkpt writes the context memory itself/],
  [[...save, '--state', 'header.vm=f', 'x'], /chkpt writes the context header itself/],
  [[...save, '--state', 'a.b/c=f', 'x'], /has a slash/],
  [[...save, '--state', `${'a'.repeat(256)}.b=f`, 'x'], /has 256 bytes, not 1 to 255/],
  [[...save, 'mem:x'], /a mem: checkpoint ends with its process/],
  [['load', 'x', '--memory', 'out', '--skip', 'memory'], /--memory and --skip memory exclude each other/],
  [['load', 'x', '--memory', 'out', '--state', 'a.b=./out'], /is the output for two things/],
  [['load', 'x', '--state', 'a.b=-', '--json'], /both need standard output/],
  [['cat', '--raw', '--json', 'x', 'a', 'b'], /--json and --raw exclude each other/],
])('%j is refused with exit code 2 and a hint', async (words, expected) => {
  const { code, line } = await refusal(words);
  expect(line).toMatch(/^chkpt: CHKPT_USAGE: [^\n]*; see chkpt (\w+ )?--help\n$/);
  expect(line).toMatch(expected);
  expect(code).toBe(2);
});

test.each([
  ['x:y', /no store is registered for x:|STORE_URL|cannot open/],
  [
    'gopher:ram',
    /^chkpt: CHKPT_STORE_UNKNOWN: .* \(store gopher:ram\); use file:PATH, dir:PATH or dir\+pool:PATH\n$/,
  ],
  ['', /^chkpt: CHKPT_STORE_URL: /],
  ['file:', /^chkpt: CHKPT_STORE_URL: /],
  ['dir:/', /^chkpt: CHKPT_STORE_URL: /],
])('the store %j is refused', async (store, line) => {
  const refused = await refusal(['verify', store]);
  expect(refused.line).toMatch(line);
  expect(refused.code).toBe(/^x:/.test(store) ? 1 : 2);
});

describe('FILE[@BASE]', () => {
  test('a machine has at most 256 regions', () => {
    const texts = Array.from({ length: 256 }, (_, index) => `ram@${index}M`);
    expect(parseMemoryArguments(texts)).toHaveLength(256);
    expect(() => parseMemoryArguments([...texts, 'ram@1G'])).toThrow('a machine has at most 256 regions');
  });

  test.each([
    ['ram.img', 'ram.img', undefined],
    ['ram.img@0', 'ram.img', 0n],
    ['ram.img@4096', 'ram.img', 4096n],
    ['ram.img@0x100000000', 'ram.img', 1n << 32n],
    ['ram.img@0X1000', 'ram.img', 4096n],
    ['ram.img@4K', 'ram.img', 4096n],
    ['ram.img@3MiB', 'ram.img', 3n << 20n],
    ['ram.img@4g', 'ram.img', 4n << 30n],
    ['ram.img@1T', 'ram.img', 1n << 40n],
    ['root@host:ram@2@8K', 'root@host:ram@2', 8192n],
  ])('%s', (text, path, base) => {
    expect(parseMemoryArguments([text])).toEqual([{ path, base }]);
  });

  test('regions are sorted by base, may touch, and must neither overlap nor leave the address space', () => {
    const region = (
      path: string,
      base: bigint,
      bytes: bigint,
    ): { path: string; base: bigint; bytes: bigint } => ({
      path,
      base,
      bytes,
    });
    const [low, high] = [region('low', 0n, 8192n), region('high', 8192n, 4096n)];
    expect(sortRegions([high, low])).toEqual([low, high]);
    expect(() => sortRegions([low, region('inside', 4096n, 4096n)])).toThrow(
      'inside (0x1000 to 0x2000) overlaps low (0x0 to 0x2000)',
    );
    expect(() => sortRegions([region('top', (1n << 52n) - 4096n, 8192n)])).toThrow(
      'ends above 0x10000000000000',
    );
  });

  const two = [
    { base: 0n, bytes: 4096n },
    { base: 1n << 32n, bytes: 8192n },
  ];
  const known =
    'the checkpoint has --memory OUTFILE@0x0 (4096 bytes), --memory OUTFILE@0x100000000 (8192 bytes)';

  test('the outputs of a load are matched with the regions by base', () => {
    const high = { path: 'high', base: 1n << 32n };
    expect(matchOutputs([high, { path: 'low', base: undefined }], two)).toEqual([
      { path: 'low', base: 0n, bytes: 4096n },
      { path: 'high', base: 1n << 32n, bytes: 8192n },
    ]);
    // The only region needs no base.
    expect(matchOutputs([{ path: 'ram', base: undefined }], two.slice(1))).toEqual([
      { path: 'ram', base: 1n << 32n, bytes: 8192n },
    ]);
  });

  test.each([
    [[{ path: 'low', base: 0n }], 'no --memory for the region at 0x100000000'],
    [[{ path: 'odd', base: 4096n }], '--memory odd: no region at 0x1000'],
    [
      [
        { path: 'a', base: 0n },
        { path: 'b', base: undefined },
      ],
      'a and b for one region at 0x0',
    ],
  ])('outputs that do not fit are refused with the list of regions: %#', (outputs, what) => {
    expect(() => matchOutputs(outputs, two)).toThrow(`${what}; ${known}`);
  });
});

test('CONTEXT.TAG is split at the first dot, and at the first = from the file', () => {
  expect(placeStates(parseStateArguments(['pic.irr=f', 'vga.ram.0=a=b.bin', 'tty.in=-']))).toEqual([
    { context: 'pic', tag: 'irr', path: 'f' },
    { context: 'vga', tag: 'ram.0', path: 'a=b.bin' },
    { context: 'tty', tag: 'in', path: '-' },
  ]);
  expect(splitState('core0.arch.msr')).toEqual([
    { context: 'core0', tag: 'arch.msr' },
    { context: 'core0.arch', tag: 'msr' },
  ]);
});

test('bytes and times are told with three digits in the unit that fits', () => {
  expect(
    [0, 1, 1023, 1024, 1536, 10_239, 1_048_063, 1_048_064, 640 * 2 ** 20, 2 ** 31].map(formatBytes),
  ).toEqual([
    ...[
      '0 bytes',
      '1 byte',
      '1023 bytes',
      '1.00 KiB',
      '1.50 KiB',
      '10.0 KiB',
      '1023 KiB',
      '1.00 MiB',
      '640 MiB',
    ],
    '2.00 GiB',
  ]);
  expect(formatBytesExactly(2 ** 31)).toBe('2.00 GiB (2147483648 bytes)');
  expect(formatBytesExactly(17)).toBe('17 bytes');
  expect([0.4, 12.3, 999.4, 999.5, 1400, 59_949, 59_950, 125_000, 3_725_000].map(formatDuration)).toEqual([
    ...['0 ms', '12 ms', '999 ms', '1.00 s', '1.40 s', '59.9 s', '1:00 min', '2:05 min', '1:02:05 h'],
  ]);
  expect([0, 59_499, 3_599_400, 3_600_000].map(formatClock)).toEqual(['0:00', '0:59', '59:59', '1:00:00']);
});

test('nothing that a terminal obeys leaves printable(), and the rest stays as it is', () => {
  expect(printable('a\n\t\r\0\u001b[31m\u007f\u009b1m\u2028\u202e\u2066')).toBe(
    'a\\n\\t\\r\\0\\x1b[31m\\x7f\\x9b1m\\u2028\\u202e\\u2066',
  );
  expect(printable('größer \\ 漢字 🙂')).toBe('größer \\ 漢字 🙂');
});

test('values become text, JSON and a preview without losing anything', () => {
  const u64 = { type: 'u64', value: 2n ** 64n - 1n } as const;
  expect([valueContent(u64), valueJson(u64), valuePreview(u64)]).toEqual([
    '18446744073709551615\n',
    '18446744073709551615',
    '18446744073709551615',
  ]);
  const f64 = {
    type: 'f64[]',
    value: Float64Array.of(-0, 1.5, Number.NaN, Number.NEGATIVE_INFINITY),
  } as const;
  expect([valueContent(f64), valueJson(f64), valuePreview(f64)]).toEqual([
    '-0\n1.5\nNaN\n-Infinity\n',
    ['-0', 1.5, 'NaN', '-Infinity'],
    '[-0 1.5 NaN -Infinity]',
  ]);
  expect(valueJson({ type: 'bool[]', value: [true, false] })).toEqual([true, false]);
  expect(valueJson({ type: 'i8', value: -3 })).toBe(-3);
  expect(valuePreview({ type: 'u8[]', value: new Uint8Array(1000) })).toBe(`[${'0 '.repeat(24)}…]`);
  expect(valueContent({ type: 'u16[]', value: new Uint16Array(0) })).toBe('');
  const bytes = { type: 'bytes', value: Uint8Array.from({ length: 17 }, (_, index) => index) } as const;
  expect(valuePreview(bytes)).toBe('000102030405060708090a0b0c0d0e0f…');
  expect(valueJson(bytes)).toBe('AAECAwQFBgcICQoLDA0ODxA=');
  expect(valuePreview({ type: 'string', value: `\u001b${'🙂'.repeat(60)}` })).toBe(
    `"\\x1b${'🙂'.repeat(47)}"…`,
  );
});

describe('progress line', () => {
  const view = { phase: 'memory', doneBytes: 2 ** 29, totalBytes: 2 ** 31, writtenBytes: 2 ** 27 } as const;

  test('has bar, share, bytes, rate, time to go and ratio', () => {
    expect(progressLine('saving', view, 2 ** 28, 100, false)).toBe(
      'saving [=======                       ]   25 %  512 MiB of 2.00 GiB  256 MiB/s  ETA 0:06  4.00 : 1',
    );
    expect(progressLine('saving', view, 2 ** 28, 100, true)).toContain('[\u001b[32m=======\u001b[39m   ');
    expect(progressLine('loading', { ...view, phase: 'commit' }, 1, 60, false)).toBe(
      'loading [=======                       ]  flushing',
    );
  });

  test('never exceeds the width of the terminal, and nothing in it is divided by zero', () => {
    for (let columns = 0; columns <= 120; columns += 1) {
      const line = progressLine('saving', view, 2 ** 28, columns, false);
      expect(line.length, `${columns} columns`).toBeLessThanOrEqual(columns);
    }
    const empty = { phase: 'memory', doneBytes: 0, totalBytes: 0 } as const;
    expect(progressLine('saving', empty, undefined, 100, false)).not.toMatch(/NaN|Infinity/);
    expect(progressLine('saving', empty, 0, 100, false)).not.toMatch(/NaN|Infinity/);
  });

  test('shows the rate of the last three seconds', () => {
    const meter = new RateMeter();
    expect(meter.rate(0, 0)).toBeUndefined();
    expect(meter.rate(1000, 500)).toBe(500);
    expect(meter.rate(3500, 500)).toBe(0);
    expect(meter.rate(4500, 1500)).toBe(1000);
  });
});

test('every code of the error table has the exit code of its kind, and its line is one line', () => {
  const codes = Object.keys(errorTable) as ErrorCode[];
  const byKind = new Map<string, Set<number>>();
  for (const code of codes) {
    const error = new CheckpointError(code, 'what\nhappened', {
      details: { store: 'file:\u001b]0;x', tag: 'a\nb' },
    });
    const { exitCode, line } = failureOf(error, 'save');
    expect(line).toMatch(new RegExp(`^chkpt: ${code}: what\\\\nhappened \\(store [^\\n]*\\); [^\\n]+$`));
    expect(line).not.toContain('\u001b');
    byKind.set(error.kind, (byKind.get(error.kind) ?? new Set()).add(exitCode));
  }
  expect(Object.fromEntries([...byKind].map(([kind, exits]) => [kind, [...exits]]))).toEqual({
    damaged: [3],
    usage: [2],
    mismatch: [1],
    state: [1],
    io: [1],
    unsupported: [1],
    aborted: [1],
    doubt: [4],
  });
  expect(failureOf(new TypeError('a bug'), undefined)).toEqual({
    exitCode: 1,
    line: 'chkpt: CHKPT_INTERNAL: TypeError: a bug; please report it with this message',
  });
});

test('every command of the table has a usage that names its operands, and options that are unique', () => {
  for (const { usages, operands, optionalOperands = 0, options } of commands) {
    const needed = operands.slice(0, operands.length - optionalOperands);
    for (const operand of operands) expect(usages[0]).toContain(operand);
    for (const usage of usages) for (const operand of needed) expect(usage).toContain(operand);
    expect(new Set(options.map(({ name }) => name)).size).toBe(options.length);
  }
});
