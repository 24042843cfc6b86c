/**
 * Memory of a process that saves, loads or converts a large, mostly untouched guest. A process of its own, because peaks of this one
 * would hide it; the work is in footprint-child.ts.
 */
import { execFile } from 'node:child_process';
import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { CephService, whyNoCeph } from '../../test/support/s3/ceph.ts';
import { accessKey, secretKey } from '../../test/support/s3/signature.ts';
import type { Bench } from '../bench.ts';
import type { FigureName } from '../catalog.ts';
import { gibBytes } from '../guest.ts';

const residentBytes = gibBytes / 4;
const runs = 3;
const works = ['save', 'load', 'convert'] as const;
const names = ['footprint', 'footprint.converted'] as const;
const bucket = 'footprint';

/** What one process did; its peak memory less the guest's, bytes. */
export interface Footprint {
  readonly beyondBytes: number;
  readonly guestResidentBytes: number;
}

export type FootprintWork = 'idle' | 'save' | 'load' | 'convert';

interface Place {
  readonly figures: 'footprint' | 'footprint.s3';
  readonly store: string;
  readonly guestBytes: number;
  /** Where it is converted to. */
  readonly to: string;
}

/** Palacios stores every page, zero or not. */
const places: readonly Place[] = [
  { figures: 'footprint', store: 'file:', guestBytes: 16 * gibBytes, to: 'gem5:' },
  { figures: 'footprint', store: 'dir:', guestBytes: 16 * gibBytes, to: 'file:' },
  { figures: 'footprint', store: 'gem5:', guestBytes: 16 * gibBytes, to: 'file:' },
  { figures: 'footprint', store: 'palacios+dir:', guestBytes: gibBytes, to: 'file:' },
];

export async function measureFootprint(bench: Bench): Promise<void> {
  if (
    !bench.wants(...works.flatMap((work) => [`footprint.${work}` as const, `footprint.s3.${work}` as const]))
  )
    return;
  const [first, second] = names.map((name) => bench.scratch.path(name)) as [string, string];
  const remove = (): void => {
    for (const path of [first, second]) rmSync(path, { recursive: true, force: true });
  };
  try {
    for (const place of places) {
      await measurePlace(bench, place, `${place.store}${first}`, `${place.to}${second}`, remove);
    }
    await measureS3(bench, `file:${second}`, remove);
  } finally {
    remove();
  }
}

/** Into an object store, and out of it. */
async function measureS3(bench: Bench, to: string, remove: () => void): Promise<void> {
  const reason = whyNoCeph();
  if (reason !== undefined) return bench.skip('footprint of s3:', reason);
  process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] = 'true';
  process.env['AWS_ACCESS_KEY_ID'] = accessKey;
  process.env['AWS_SECRET_ACCESS_KEY'] = secretKey;
  const ceph = await CephService.start({ stores: 1, kind: 'memstore' });
  try {
    const { endpoint } = ceph;
    const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true });
    await client.send(new CreateBucketCommand({ Bucket: bucket }));
    client.destroy();
    const url = `s3://${bucket}/vm?endpoint=${endpoint}&region=us-east-1`;
    const place = { figures: 'footprint.s3', store: 's3:', guestBytes: 16 * gibBytes, to: 'file:' } as const;
    await measurePlace(bench, place, url, to, remove);
  } finally {
    await ceph.stop();
  }
}

async function measurePlace(
  bench: Bench,
  { figures, store, guestBytes, to }: Place,
  url: string,
  target: string,
  remove: () => void,
): Promise<void> {
  const wanted = works.filter((work) => bench.wants(`${figures}.${work}`));
  if (wanted.length === 0) return;
  const threads = Math.max(...bench.options.threads);
  const idle: number[] = [];
  const peaks = { save: [] as number[], load: [] as number[], convert: [] as number[] };
  const measure = async (work: FootprintWork): Promise<number> =>
    await footprintOf(work, [url, target], guestBytes, threads);
  for (let run = 0; run <= runs; run += 1) {
    idle.push(await measure('idle'));
    if (run === runs) break;
    remove();
    peaks.save.push(await measure('save'));
    if (wanted.includes('load')) peaks.load.push(await measure('load'));
    if (wanted.includes('convert')) peaks.convert.push(await measure('convert'));
  }
  remove();
  for (const work of wanted) {
    const name: FigureName = `${figures}.${work}`;
    const memory = `mostly untouched, ${work === 'convert' ? `${store} to ${to}` : store}`;
    const parameters = { memory, bytes: guestBytes, resident: residentBytes, threads };
    bench.ratio({ name, baseline: 'idle process', parameters, cost: 'bytes' }, peaks[work], idle);
    bench.value({ name: `${name}.bytes`, parameters, unit: 'bytes' }, peaks[work]);
  }
}

async function footprintOf(
  work: FootprintWork,
  urls: readonly [string, string],
  guestBytes: number,
  threads: number,
): Promise<number> {
  const program = fileURLToPath(new URL('../footprint-child.js', import.meta.url));
  const args = [program, work, ...urls, String(guestBytes), String(residentBytes), String(threads)];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  return (JSON.parse(stdout) as Footprint).beyondBytes;
}
