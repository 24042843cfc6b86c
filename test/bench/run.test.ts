import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseDocument } from '../../bench/document.ts';
import { main } from '../../bench/run.ts';
import { hasNativeAddon } from '../../src/native/index.ts';
import { documentOf, ratioRecord } from './ratio-document.ts';

let folder = '';
let printed = '';
let told = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'chkpt-test-'));
  printed = '';
  told = '';
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function bench(...args: string[]): Promise<number> {
  return await main(
    args,
    (text) => {
      printed += text;
    },
    (line) => {
      told += `${line}\n`;
    },
  );
}

function file(name: string, content: unknown): string {
  const path = join(folder, name);
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

describe('exit codes of a comparison', () => {
  const ratios = [0.94, 0.95, 0.95, 0.96, 0.95];
  const slower = ratios.map((ratio) => ratio / 1.2);

  test('0 and every ratio named when nothing is slower', async () => {
    const path = file('a.json', documentOf(ratioRecord(ratios)));
    expect(await bench('--compare', path, '--from', path)).toBe(0);
    expect(printed).toContain('fine       save.lz4.null liblz4');
  });

  test('1 and the figure named when it is slower by 20 %', async () => {
    const older = file('a.json', documentOf(ratioRecord(ratios)));
    const newer = file('b.json', documentOf(ratioRecord(slower)));
    expect(await bench('--compare', older, '--from', newer)).toBe(1);
    expect(printed).toContain('REGRESSION save.lz4.null liblz4');
    expect(await bench('--compare', newer, '--from', older)).toBe(0);
  });

  test('4 when it is too noisy to say', async () => {
    const path = file('a.json', documentOf(ratioRecord([0.5, 0.7, 0.95, 1.2, 1.5])));
    expect(await bench('--compare', path, '--from', path)).toBe(4);
  });

  test('ratios that only one of the two has are named', async () => {
    const other = ratioRecord(ratios, { name: 'scan.zero', baseline: 'read' });
    const older = file('a.json', documentOf(ratioRecord(ratios), other));
    const newer = file('b.json', documentOf(ratioRecord(ratios)));
    expect(await bench('--compare', older, '--from', newer)).toBe(0);
    expect(printed).toContain('missing    scan.zero read');
    expect(await bench('--compare', newer, '--from', older)).toBe(0);
    expect(printed).toContain('new        scan.zero read');
  });

  test('2 for another version of the schema, for no document and for nothing in common', async () => {
    const sound = file('a.json', documentOf(ratioRecord(ratios)));
    const newerVersion = file('b.json', { ...documentOf(ratioRecord(ratios)), version: 2 });
    const unrelated = file('c.json', documentOf(ratioRecord(ratios, { parameters: { threads: 9 } })));
    expect(await bench('--compare', newerVersion, '--from', sound)).toBe(2);
    expect(told).toContain('version 2 of chkpt-bench');
    expect(await bench('--compare', file('d.json', 'x'), '--from', sound)).toBe(2);
    expect(await bench('--compare', join(folder, 'absent'), '--from', sound)).toBe(2);
    expect(await bench('--compare', unrelated, '--from', sound)).toBe(2);
  });
});

test('--list names every target', async () => {
  expect(await bench('--list')).toBe(0);
  for (const target of ['≥ 0.9', '≥ 2.5', '≥ 0.7', '≥ 0.85', '≥ 0.8', '≤ 2', '≤ 10']) {
    expect(printed).toContain(target);
  }
});

describe.skipIf(!hasNativeAddon())('a real run', () => {
  test('measures, writes a document that compares with itself, and leaves nothing behind', {
    timeout: 300_000,
  }, async () => {
    const json = join(folder, 'run.json');
    const scratch = mkdtempSync(join(folder, 'scratch-'));
    const only = 'save.lz4.null,save.raw,load.lz4.file,scan.untouched';
    const args = ['--gib', '0.0625', '--runs', '3', '--seconds', '0', '--threads', '1', '--scratch', scratch];
    expect(await bench(...args, '--image', smallImage(), '--only', only, '--json', json)).toBe(0);
    const document = parseDocument(readFileSync(json, 'utf8'));
    const figures = document.ratios.map(({ name, parameters }) => `${name} ${parameters['memory']}`);
    for (const memory of ['generated', 'image.ram']) {
      for (const name of ['save.lz4.null', 'save.raw.null', 'save.raw.file', 'load.lz4.file']) {
        expect(figures).toContain(`${name} ${memory}`);
      }
    }
    expect(document.values.map(({ name }) => name)).toContain('scan.untouched.cost');
    expect(printed).toContain('targets: ');
    expect(readdirSync(scratch)).toEqual([]);
    expect([0, 4]).toContain(await bench('--compare', json, '--from', json));
  });

  test('a RAM image that is not whole pages is refused before anything is measured with it', async () => {
    const image = file('odd.ram', 'odd');
    expect(
      await bench('--image', image, '--only', 'save.lz4.null', '--gib', '0.0625', '--scratch', folder),
    ).toBe(2);
  });

  /** 4 MiB and a page: zeros, equal pages, text. */
  function smallImage(): string {
    const image = Buffer.alloc(4 * 1024 ** 2 + 4096);
    image.fill('a guest was here ', 1024 ** 2, 3 * 1024 ** 2);
    for (let page = 0; page < 256; page += 1) image.writeUInt32LE(page + 1, 1024 ** 2 + 8192 * page);
    const path = join(folder, 'image.ram');
    writeFileSync(path, image);
    return path;
  }
});
