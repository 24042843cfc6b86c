/** MANIFEST.json as text: exactly one text for each value, and no other text is accepted. */
import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { manifestBytesMax } from '../../src/limits.ts';
import { type Manifest, parseManifest, serializeManifest } from '../../src/store/manifest.ts';
import { isSegmentFileName, segmentFileName } from '../../src/store/segment-file.ts';

const uuid = '01234567-89ab-4cde-8f01-23456789abcd';
const root = 'ab'.repeat(32);

const manifest: Manifest = {
  uuid,
  parent: null,
  epoch: '0',
  root,
  bytes: 5128,
  generation: uuid,
  segments: [
    { name: 'start', kind: 'start', file: '000-start', bytes: 128, frames: 0, digest: '1'.repeat(64) },
    { name: 'Gerät "ü"', kind: 'values', file: '001-Ger_t____', bytes: 0, frames: 2, digest: '2'.repeat(64) },
    {
      name: 'memory',
      kind: 'memory',
      file: '002-memory.pages',
      bytes: 5000,
      frames: 7,
      digest: '3'.repeat(64),
    },
  ],
};

const pack = '01234567-89ab-4cde-8f01-00000000000a.pack';
const pooledMemory = {
  name: 'memory',
  kind: 'memory',
  file: '000-memory.pages',
  bytes: 5000,
  frames: 7,
  digest: '3'.repeat(64),
  pooled: { map: '000-memory.map', own: 400, digest: '4'.repeat(64) },
} as const;
const { segments: _plain, ...start } = manifest;
const pooledManifest: Manifest = {
  ...start,
  bytes: 5000,
  packs: [{ file: pack, bytes: 70_000 }],
  segments: [pooledMemory],
};

const goldenText = `{
  "format": "chkpt directory",
  "version": 1,
  "uuid": "${uuid}",
  "parent": null,
  "epoch": "0",
  "root": "${root}",
  "bytes": 5128,
  "generation": "${uuid}",
  "segments": [
    {
      "name": "start",
      "kind": "start",
      "file": "000-start",
      "bytes": 128,
      "frames": 0,
      "digest": "${'1'.repeat(64)}"
    },
    {
      "name": "Gerät \\"ü\\"",
      "kind": "values",
      "file": "001-Ger_t____",
      "bytes": 0,
      "frames": 2,
      "digest": "${'2'.repeat(64)}"
    },
    {
      "name": "memory",
      "kind": "memory",
      "file": "002-memory.pages",
      "bytes": 5000,
      "frames": 7,
      "digest": "${'3'.repeat(64)}"
    }
  ],
  "digest": "DIGEST"
}
`;

/** What the digest is taken over, written out: sorted keys, no white space. */
const canonicalText = [
  `{"bytes":5128,"epoch":"0","format":"chkpt directory","generation":"${uuid}","parent":null,"root":"${root}",`,
  `"segments":[`,
  `{"bytes":128,"digest":"${'1'.repeat(64)}","file":"000-start","frames":0,"kind":"start","name":"start"},`,
  `{"bytes":0,"digest":"${'2'.repeat(64)}","file":"001-Ger_t____","frames":2,"kind":"values","name":"Gerät \\"ü\\""},`,
  `{"bytes":5000,"digest":"${'3'.repeat(64)}","file":"002-memory.pages","frames":7,"kind":"memory","name":"memory"}`,
  `],"uuid":"${uuid}","version":1}`,
].join('');

describe('manifest', () => {
  test('the text is the one in docs/stores.md, with a SHA-256 over its canonical form', () => {
    const digest = createHash('sha256').update(canonicalText).digest('hex');
    expect(serializeManifest(manifest)).toBe(goldenText.replace('DIGEST', digest));
  });

  test('what was written is read', () => {
    const largest = {
      ...manifest,
      parent: 'ffffffff-ffff-ffff-ffff-ffffffffffff',
      epoch: String(2n ** 64n - 1n),
      generation: `${uuid}.12`,
    };
    for (const value of [manifest, largest, { ...manifest, bytes: 0, segments: [] }]) {
      expect(parse(serializeManifest(value))).toMatchObject(value);
    }
  });

  test('one with packs has version 2, and is read', () => {
    const text = serializeManifest(pooledManifest);
    expect(JSON.parse(text)).toMatchObject({ version: 2, packs: [{ file: pack, bytes: 70_000 }] });
    expect(parse(text)).toMatchObject(pooledManifest);
    // An empty memory needs none.
    expect(parse(serializeManifest({ ...pooledManifest, packs: [] }))).toMatchObject({ packs: [] });
  });

  const { pooled } = pooledMemory;
  test.each<[string, Partial<Manifest> | Record<string, unknown>]>([
    ['a pack outside of the folder', { packs: [{ file: `../${pack}`, bytes: 1 }] }],
    ['a pack with an absolute path', { packs: [{ file: `/tmp/${pack}`, bytes: 1 }] }],
    ['a pack that is no pack', { packs: [{ file: '000-memory.pages', bytes: 1 }] }],
    ['a pack twice', { packs: [1, 2].map((bytes) => ({ file: pack, bytes })) }],
    ['a pack of negative length', { packs: [{ file: pack, bytes: -1 }] }],
    ['packs that are no list', { packs: { file: pack } }],
    ['version 1', { version: 1 }],
    ['a map outside', { segments: [{ ...pooledMemory, pooled: { ...pooled, map: '../000-memory.map' } }] }],
    [
      'a map that is a segment',
      { segments: [{ ...pooledMemory, pooled: { ...pooled, map: pooledMemory.file } }] },
    ],
    ['more own bytes than bytes', { segments: [{ ...pooledMemory, pooled: { ...pooled, own: 5001 } }] }],
    ['no digest of the map', { segments: [{ ...pooledMemory, pooled: { ...pooled, digest: '' } }] }],
    ['something more of a map', { segments: [{ ...pooledMemory, pooled: { ...pooled, more: 1 } }] }],
    ['a map that is none', { segments: [{ ...pooledMemory, pooled: null }] }],
  ])('%s is refused', (_, change) => {
    expect(codeOf(Buffer.from(forge({}, 2, pooledManifest)))).toBe('none');
    expect(codeOf(Buffer.from(forge(change, 2, pooledManifest)))).toBe('CHKPT_MANIFEST');
  });

  test.each([
    ['1', manifest],
    ['2', pooledManifest],
  ])('every flipped bit is damage, also one that makes version %s another one', (_, value) => {
    const bytes = Buffer.from(serializeManifest(value));
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const flipped = Buffer.from(bytes);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(codeOf(flipped), `bit ${bit}`).toBe('CHKPT_MANIFEST');
    }
  });

  test('every cut and every appended byte is noticed', () => {
    const bytes = Buffer.from(serializeManifest(manifest));
    for (let length = 0; length < bytes.length; length += 1) {
      expect(codeOf(bytes.subarray(0, length)), `cut at ${length}`).toBe('CHKPT_MANIFEST');
    }
    for (const more of ['\n', ' ', '\0', '{}'])
      expect(codeOf(Buffer.concat([bytes, Buffer.from(more)]))).toBe('CHKPT_MANIFEST');
    expect(codeOf(Buffer.concat([Buffer.from('\ufeff'), bytes]))).toBe('CHKPT_MANIFEST');
  });

  test('a newer version is CHKPT_VERSION, whatever else is in it', () => {
    expect(codeOf(Buffer.from('{"format":"chkpt directory","version":3,"more":[]}'))).toBe('CHKPT_VERSION');
    expect(codeOf(Buffer.from('{"format":"chkpt directory","version":2,"more":[]}'))).toBe('CHKPT_MANIFEST');
    expect(codeOf(Buffer.from('{"format":"other","version":3}'))).toBe('CHKPT_MANIFEST');
  });

  test('a newer version of the same form, with a digest of its own, is CHKPT_VERSION', () => {
    for (const version of [3, 5, 9]) {
      expect(codeOf(Buffer.from(forge({ version })))).toBe('CHKPT_VERSION');
    }
  });

  const [first] = manifest.segments;
  const file = (name: unknown) => ({ segments: [{ ...first, file: name }], bytes: 128 });
  const segment = (change: object) => ({ segments: [{ ...first, ...change }], bytes: 128 });
  test.each<[string, object]>([
    ['parent directory', file('../000-start')],
    ['dots', file('..')],
    ['hidden file', file('.000-start')],
    ['absolute path', file('/etc/passwd')],
    ['path into a folder', file('000-a/b')],
    ['file without number', file('start')],
    ['file name too long', file(`000-${'x'.repeat(97)}`)],
    ['file that is no text', file(7)],
    ['same file twice', { segments: [first, { ...first, name: 'other' }], bytes: 256 }],
    ['NUL in a file', file('000-a\0')],
    ['slash in a name', segment({ name: 'a/b' })],
    ['name ..', segment({ name: '..' })],
    ['empty name', segment({ name: '' })],
    ['name with a control character', segment({ name: 'a\nb' })],
    ['name that is not Unicode', segment({ name: '\ud800' })],
    ['name of 256 bytes', segment({ name: 'x'.repeat(256) })],
    ['unknown kind', segment({ kind: 'pages' })],
    ['negative bytes', { segments: [{ ...first, bytes: -1 }], bytes: -1 }],
    ['fraction of a byte', { segments: [{ ...first, bytes: 0.5 }], bytes: 0.5 }],
    ['unsafe bytes', { segments: [{ ...first, bytes: 2 ** 53 }], bytes: 2 ** 53 }],
    ['bytes as text', segment({ bytes: '128' })],
    ['frames missing', segment({ frames: undefined })],
    ['digest in upper case', segment({ digest: 'A'.repeat(64) })],
    ['segment that is none', { segments: [null], bytes: 0 }],
    ['segment with another key', segment({ more: 1 })],
    ['segments that are no list', { segments: {}, bytes: 0 }],
    ['sum that is wrong', { bytes: 5129 }],
    ['uuid that is none', { uuid: 'x' }],
    ['parent that is none', { parent: '' }],
    ['epoch as a number', { epoch: 0 }],
    ['epoch with a zero in front', { epoch: '01' }],
    ['epoch above 64 bits', { epoch: String(2n ** 64n) }],
    ['short root', { root: 'ab' }],
    ['generation that leaves the folder', { generation: '..' }],
    ['generation that is hidden', { generation: `.tmp-${uuid}-1` }],
    ['generation with a path', { generation: `${uuid}/x` }],
    ['another key', { more: 1 }],
    ['format', { format: 'chkpt' }],
    ['version as text', { version: '1' }],
    ['version 0', { version: 0 }],
  ])('a forged manifest with a sound digest is refused: %s', (_, change) => {
    expect(codeOf(Buffer.from(forge(change)))).toBe('CHKPT_MANIFEST');
  });

  test('keys twice, __proto__, numbers in another form and deep nesting are refused', () => {
    const text = serializeManifest(manifest);
    expect(codeOf(Buffer.from(forge({})))).toBe('none');
    for (const [from, to] of [
      ['"version": 1,', '"version": 1,\n  "version": 1,'],
      ['"version": 1,', '"version": 1,\n  "__proto__": {},'],
      ['"bytes": 5128,', '"bytes": 5128.0,'],
      ['"bytes": 5128,', '"bytes": 5.128e3,'],
      ['Gerät', 'Ger\\u00e4t'],
      ['\n', '\r\n'],
    ] as const) {
      expect(text).toContain(from);
      expect(codeOf(Buffer.from(text.replace(from, to))), to).toBe('CHKPT_MANIFEST');
    }
    expect(codeOf(Buffer.from('['.repeat(1_000_000)))).toBe('CHKPT_MANIFEST');
    expect(codeOf(Buffer.from(`${'['.repeat(100_000)}${']'.repeat(100_000)}`))).toBe('CHKPT_MANIFEST');
    for (const json of ['null', '7', '"x"', '[]', 'true'])
      expect(codeOf(Buffer.from(json))).toBe('CHKPT_MANIFEST');
  });

  test('a manifest above the limit is refused unread', () => {
    const start = Buffer.from(serializeManifest(manifest));
    const long = Buffer.alloc(manifestBytesMax + 1, 0x20);
    start.copy(long);
    expect(() => parse(long)).toThrow(/too long/);
  });
});

describe('segmentFileName', () => {
  test.each([
    [0, 'start', 'start', '000-start'],
    [7, 'memory', 'memory', '007-memory.pages'],
    [12, 'values', 'core0.arch', '012-core0.arch'],
    [13, 'values', 'pci 00:1f.2 ü€😀', '013-pci_00_1f.2____'],
    [999, 'end', 'end', '999-end'],
    [65_537, 'values', '..', '65537-..'],
    [1, 'values', 'x'.repeat(255), `001-${'x'.repeat(96)}`],
    [1, 'memory', 'x'.repeat(255), `001-${'x'.repeat(90)}.pages`],
  ] as const)('segment %i, %s %s', (ordinal, kind, name, expected) => {
    const file = segmentFileName(ordinal, { kind, name });
    expect(file).toBe(expected);
    expect(isSegmentFileName(file)).toBe(true);
  });
});

/** The text of a manifest with other members, whose digest and layout are right. */
function forge(change: object, version = 1, base = manifest): string {
  const content = {
    format: 'chkpt directory',
    version,
    ...base,
    ...change,
  };
  const sorted = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(sorted);
    if (typeof value !== 'object' || value === null) return value;
    const members = Object.entries(value).sort(([left], [right]) => (left < right ? -1 : 1));
    return Object.fromEntries(members.map(([key, member]) => [key, sorted(member)]));
  };
  const digest = createHash('sha256')
    .update(JSON.stringify(sorted(content)))
    .digest('hex');
  return `${JSON.stringify({ ...content, digest }, undefined, 2)}\n`;
}

function parse(text: string | Uint8Array): Manifest {
  return parseManifest(typeof text === 'string' ? Buffer.from(text) : text, {});
}

function codeOf(bytes: Uint8Array): string {
  try {
    parse(bytes);
    return 'none';
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}
