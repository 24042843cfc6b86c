/** Checkpoints that the command line did not make: every type of value, hostile names, no header, devices and cores. */
import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { headerState } from '../../src/checkpoint/vm-header.ts';
import { tableTags } from '../../src/checkpoint/vm-plan.ts';
import { openCheckpoint, type SavableValue } from '../../src/index.ts';
import { makeFolder, makeSharedFolder } from './support/folders.ts';
import { chkpt, chkptJson, chkptOk } from './support/run-cli.ts';

const folder = makeSharedFolder();
const store = `${folder}/values.chkpt`;

/** A signalling NaN: decoding and encoding it again would change it. */
const nanBytes = Buffer.from('010080ff', 'hex');

/** Every type, with what `cat` must print. */
const values: readonly (readonly [tag: string, value: SavableValue, text: string])[] = [
  ['bool', true, 'true\n'],
  ['u8', { type: 'u8', value: 255 }, '255\n'],
  ['u16', { type: 'u16', value: 65_535 }, '65535\n'],
  ['u32', 4_294_967_295, '4294967295\n'],
  ['u64', 18_446_744_073_709_551_615n, '18446744073709551615\n'],
  ['i8', { type: 'i8', value: -128 }, '-128\n'],
  ['i16', { type: 'i16', value: -32_768 }, '-32768\n'],
  ['i32', -2_147_483_648, '-2147483648\n'],
  ['i64', -9_223_372_036_854_775_808n, '-9223372036854775808\n'],
  ['f32', { type: 'f32', value: 0.5 }, '0.5\n'],
  ['f64', 0.1, '0.1\n'],
  ['bools', { type: 'bool[]', value: [true, false] }, 'true\nfalse\n'],
  ['f32s', new Float32Array(nanBytes.buffer.slice(nanBytes.byteOffset, nanBytes.byteOffset + 4)), 'NaN\n'],
  ['u64s', BigUint64Array.of(1n, 2n ** 63n), '1\n9223372036854775808\n'],
  ['none', new Uint32Array(0), ''],
  ['red\u009b31m', 7, '7\n'],
  ['text', 'ünï\ncode', 'ünï\ncode'],
  ['clear', '\u001b[2J\u009b31m', '\u001b[2J\u009b31m'],
  ['bytes', Uint8Array.of(0, 1, 254, 255), '\u0000\u0001\ufffd\ufffd'],
];

beforeAll(async () => {
  const checkpoint = await openCheckpoint(store, { mode: 'save', createdMs: 0 });
  const context = await checkpoint.openContext('odd \u009bname\u202e');
  for (const [tag, value] of values) await context.save(tag, value);
  await context.close();
  const empty = await checkpoint.openContext('empty');
  await empty.close();
  await checkpoint.commit();
});

describe('a checkpoint without header', () => {
  test('info tells what there is and null for the rest', async () => {
    expect(await chkptJson(['info', store])).toMatchObject({
      created: null,
      producer: null,
      id: null,
      cpu: null,
      cores: null,
      skip: null,
      regions: [],
      memoryBytes: 0,
      ratio: null,
      codecRatio: null,
      devices: null,
      contexts: [
        { name: 'odd \u009bname\u202e', kind: 'values', tags: values.length },
        { name: 'empty', kind: 'values', tags: 0, bytes: 0 },
      ],
    });
    const { stdout } = await chkptOk(['info', store]);
    expect(stdout.toString()).toMatch(/^machine +not told$/m);
    expect(stdout.toString()).not.toMatch(/NaN|undefined|null/);
  });

  test('load says that the header is missing', async () => {
    const { code, stderr } = await chkpt(['load', store, '--skip', 'memory'], { cwd: makeFolder() });
    expect(stderr).toMatch(/^chkpt: CHKPT_NO_CONTEXT: .*context header/);
    expect(code).toBe(1);
  });
});

test('ls and info print nothing from the checkpoint that a terminal would obey', async () => {
  for (const command of ['ls', 'info']) {
    const { stdout } = await chkptOk([command, store]);
    const text = stdout.toString();
    expect(text).toContain('odd \\x9bname\\u202e');
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it is about
    expect(text.replaceAll('\n', '')).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e]/);
  }
  const { stderr } = await chkpt(['cat', store, '\u001b[2J\nx', 'y']);
  expect(stderr).toMatch(/^chkpt: CHKPT_NO_CONTEXT: [^\n]*context \\x1b\[2J\\nx, tag y[^\n]*\n$/);
});

test('cat prints every type as documented, and --raw its bytes as they stand in the checkpoint', async () => {
  const context = 'odd \u009bname\u202e';
  const raw: Record<string, string> = {
    u64: 'f'.repeat(16),
    f32s: nanBytes.toString('hex'),
    bools: '0100',
    none: '',
  };
  for (const [tag, , text] of values) {
    const { stdout } = await chkptOk(['cat', store, context, tag]);
    expect(stdout.toString(), tag).toBe(text);
  }
  for (const [tag, hex] of Object.entries(raw)) {
    const { stdout } = await chkptOk(['cat', '--raw', store, context, tag]);
    expect(stdout.toString('hex'), tag).toBe(hex);
  }
});

test('info shows devices, and load reaches into contexts with dots in their names', async () => {
  const cwd = makeFolder();
  const checkpoint = await openCheckpoint(`${cwd}/vm`, { mode: 'save' });
  const header = await checkpoint.openContext('header');
  await header.save(headerState, {
    producer: 'somebody 1',
    vm: { id: 'guest' },
    options: { skip: 0 },
    page: { bytes: 4096 },
    region: { base: new BigUint64Array(0), bytes: new BigUint64Array(0) },
    core: { count: 2 },
    cpu: { vendor: 'GenuineIntel', model: 'Test' },
  });
  await header.close();
  const table = await checkpoint.openContext('devices');
  const device = { id: 'nic0', deviceClass: 'e1000', contexts: ['nic.0', 'nic.1'] };
  await table.saveAll(Object.fromEntries(tableTags([device])));
  await table.close();
  for (const name of ['nic.0', 'nic', 'core0.arch']) {
    const context = await checkpoint.openContext(name);
    await context.saveAll({ mac: `mac of ${name}`, 'msr.efer': 0xd01n });
    await context.close();
  }
  await checkpoint.commit();

  const info = await chkptJson(['info', 'vm'], { cwd });
  expect(info).toMatchObject({ cores: 2, cpu: { vendor: 'GenuineIntel', model: 'Test' } });
  expect(info.devices).toEqual([{ id: 'nic0', class: 'e1000', contexts: ['nic.0', 'nic.1'] }]);
  expect((await chkptOk(['info', 'vm'], { cwd })).stdout.toString()).toMatch(
    /^nic0 +e1000 +nic\.0, nic\.1$/m,
  );
  const state = ['nic.mac=a', 'nic.0.mac=b', 'core0.arch.msr.efer=c', 'nic.msr.efer=d'];
  const loaded = await chkptJson(['load', 'vm', ...state.flatMap((one) => ['--state', one])], { cwd });
  expect(loaded.state).toEqual([
    { context: 'nic', tag: 'mac', path: 'a', bytes: 10 },
    { context: 'nic.0', tag: 'mac', path: 'b', bytes: 12 },
    { context: 'core0.arch', tag: 'msr.efer', path: 'c', bytes: 8 },
    { context: 'nic', tag: 'msr.efer', path: 'd', bytes: 8 },
  ]);
  expect(readFileSync(`${cwd}/b`, 'utf8')).toBe('mac of nic.0');
  expect(readFileSync(`${cwd}/c`, 'hex')).toBe('010d000000000000');
});
