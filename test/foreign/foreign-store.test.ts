/** The translation itself, with a format that keeps everything in this process. */
import { readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CheckpointError } from '../../src/errors/index.ts';
import type {
  ForeignContent,
  ForeignFormat,
  ForeignReading,
  ForeignWriter,
} from '../../src/foreign/foreign-format.ts';
import { ForeignStore } from '../../src/foreign/foreign-store.ts';
import { GuestMemory, openCheckpoint, PageEncoder, type Store, verifyCheckpoint } from '../../src/index.ts';
import { StoreRegistry } from '../../src/store/registry.ts';
import { describeForeignStore } from '../conformance/foreign-store.suite.ts';

interface Kept {
  readonly content: ForeignContent;
  readonly pages: Uint8Array[];
}

/** Copies pages through JavaScript, as no real format may. */
class PlainFormat implements ForeignFormat {
  readonly scratchFolder: string;
  kept: Kept | undefined;
  /** What to throw when memory is taken or given. */
  fault: Error | undefined;

  constructor(scratchFolder: string) {
    this.scratchFolder = scratchFolder;
  }

  async createWriter(): Promise<ForeignWriter> {
    let pages: Uint8Array[] = [];
    return {
      memory: async (_name, image) => {
        if (this.fault !== undefined) throw this.fault;
        pages = image.regions.map(({ base, bytes }) => image.read(base, Number(bytes)));
      },
      commit: async (content) => {
        this.kept = { content, pages };
        return 12_345;
      },
      abort: async () => undefined,
    };
  }

  async openReading(): Promise<ForeignReading> {
    const { kept } = this;
    if (kept === undefined) throw new CheckpointError('CHKPT_NOT_FOUND', 'nothing is kept');
    return {
      ...kept.content,
      integrity: 'none',
      readMemory: async (image) => {
        if (this.fault !== undefined) throw this.fault;
        for (const [index, { base }] of image.regions.entries()) {
          image.write(base, kept.pages[index] ?? new Uint8Array());
        }
      },
      close: async () => undefined,
    };
  }

  async remove(): Promise<void> {
    this.kept = undefined;
  }
}

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chkpt-foreign-'));
});
afterAll(async () => await rm(folder, { recursive: true }));

function openerOf(format: PlainFormat): () => Store {
  return () => {
    const registry = new StoreRegistry();
    registry.register('plain', (_rest, url) => new ForeignStore(url, format));
    return registry.open('plain:here');
  };
}

const regions = [
  { base: 0n, bytes: 1n << 20n },
  { base: 1n << 32n, bytes: 3n << 16n },
];
const traits = { types: true, integrity: 'none', removes: true, regions } as const;

await describeForeignStore('of this test', traits, () => {
  const format = new PlainFormat(folder);
  const open = openerOf(format);
  return { open, remains: () => [...readdirSync(folder), `${format.kept?.content.uuid}`] };
});

describe('a foreign store', () => {
  test('says how many bytes the checkpoint takes, not the stream', async () => {
    const checkpoint = await openCheckpoint(openerOf(new PlainFormat(folder))(), { mode: 'save' });
    expect(await checkpoint.commit()).toMatchObject({ storedBytes: 12_345 });
  });

  test.each(['handed over', 'as frames'])(
    'a failure in taking memory is the failure of the save: %s',
    async (way) => {
      const format = new PlainFormat(folder);
      format.fault = new CheckpointError('CHKPT_NO_SPACE', 'full');
      const memory = GuestMemory.allocate(regions);
      const encoder = new PageEncoder(memory);
      const frames = { regions: encoder.regions, open: encoder.open.bind(encoder) };
      const checkpoint = await openCheckpoint(openerOf(format)(), { mode: 'save' });
      const attempt = (async () => {
        await checkpoint.saveMemory('memory', way === 'as frames' ? frames : encoder);
        await checkpoint.commit();
      })();
      await expect(attempt).rejects.toMatchObject({ code: 'CHKPT_NO_SPACE' });
      await checkpoint.abort();
      expect(format.kept).toBe(undefined);
      expect(readdirSync(folder)).toEqual([]);
      await memory.close();
    },
  );

  test('damage that is found in memory is the failure of the load', async () => {
    const format = new PlainFormat(folder);
    const memory = GuestMemory.allocate(regions);
    const checkpoint = await openCheckpoint(openerOf(format)(), { mode: 'save' });
    await checkpoint.saveMemory('memory', new PageEncoder(memory));
    await checkpoint.commit();
    format.fault = new CheckpointError('CHKPT_FORMAT', 'damaged');
    await expect(verifyCheckpoint(openerOf(format)())).rejects.toMatchObject({ code: 'CHKPT_FORMAT' });
    expect(readdirSync(folder)).toEqual([]);
    await memory.close();
  });
});
