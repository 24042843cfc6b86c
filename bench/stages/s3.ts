/**
 * Saves into an object store and loads of one, beside plain requests to the same service for as many bytes: Ceph's gateway on loopback
 * with one store in memory. The requests of the baseline have bodies that are ready, and hash them, as a signed request has to.
 */
import { randomFillSync, webcrypto } from 'node:crypto';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { loadVm } from '../../src/checkpoint/load-vm.ts';
import { saveVm } from '../../src/checkpoint/save-vm.ts';
import { openStore } from '../../src/store/index.ts';
import { S3Host } from '../../src/store/s3/host.ts';
import { parsePlace } from '../../src/store/s3/place.ts';
import type { S3Service } from '../../src/store/s3/service.ts';
import { CephService, whyNoCeph } from '../../test/support/s3/ceph.ts';
import { accessKey, secretKey } from '../../test/support/s3/signature.ts';
import { type Bench, timed } from '../bench.ts';
import { type Guest, generateGuest, untouchedGuest } from '../guest.ts';
import type { Cost } from '../interleave.ts';
import { machineOf } from '../memory-machine.ts';
import { fixedIdentity } from './encode.ts';

/** Two stores of a run, and the objects that were removed and are still there, fit into the 2 GiB of the service. */
const memoryBytes = 256 * 1024 ** 2;
const partBytes = 8 * 1024 ** 2;
const concurrency = 4;
const bucket = 'bench';

export async function measureS3(bench: Bench): Promise<void> {
  if (!bench.wants('save.s3', 'load.s3')) return;
  const reason = whyNoCeph();
  if (reason !== undefined) return bench.skip('s3', reason);
  process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] = 'true';
  process.env['AWS_ACCESS_KEY_ID'] = accessKey;
  process.env['AWS_SECRET_ACCESS_KEY'] = secretKey;
  const ceph = await CephService.start({ stores: 1, kind: 'memstore' });
  try {
    const threads = Math.max(...bench.options.threads);
    const guest = await generateGuest(memoryBytes, threads);
    try {
      await measureWith(bench, guest, ceph.endpoint, threads);
    } finally {
      await guest.memory.close();
    }
  } finally {
    await ceph.stop();
  }
}

async function measureWith(bench: Bench, guest: Guest, endpoint: string, threads: number): Promise<void> {
  const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true });
  await client.send(new CreateBucketCommand({ Bucket: bucket }));
  client.destroy();
  const url = `s3://${bucket}/vm?endpoint=${endpoint}&region=us-east-1&concurrency=${concurrency}`;
  const service = await new S3Host().service(parsePlace(url.slice('s3:'.length), url), url);
  const options = { ...fixedIdentity, threads, codec: 'raw' } as const;
  const { checkpointBytes } = await saveVm(guest.vm, url, options);
  const objects = new PlainObjects(service, checkpointBytes);
  const { facts } = guest;
  const contest = {
    parameters: { memory: facts.memory, bytes: facts.bytes, content: facts.content, threads },
    memoryBytes: checkpointBytes,
    runs: bench.options.commandRuns,
  };
  await bench.contest({
    ...contest,
    baselines: { 'parallel PUT': () => objects.put() },
    subjects: {
      'save.s3': async () => {
        await openStore(url).remove?.();
        return await timed(() => saveVm(guest.vm, url, options));
      },
    },
  });
  await objects.put();
  await bench.contest({
    ...contest,
    baselines: { 'parallel GET': () => objects.get() },
    subjects: {
      'load.s3': async () => {
        const memory = untouchedGuest(facts.bytes);
        try {
          return await timed(() => loadVm(machineOf(memory), url, { threads }));
        } finally {
          await memory.close();
        }
      },
    },
  });
}

/** Objects of the size of a part, as many as it takes; several requests at a time. */
class PlainObjects {
  readonly #service: S3Service;
  readonly #bodies: Uint8Array<ArrayBuffer>[] = [];
  readonly #etags: string[] = [];

  constructor(service: S3Service, byteCount: number) {
    this.#service = service;
    const content = randomFillSync(new Uint8Array(partBytes));
    for (let left = byteCount; left > 0; left -= partBytes) this.#bodies.push(content.subarray(0, left));
  }

  put(): Promise<Cost> {
    return this.#each(async (bytes, index) => {
      const digest = Buffer.from(await webcrypto.subtle.digest('SHA-256', bytes)).toString('hex');
      this.#etags[index] = await this.#service.put(`plain/${index}`, bytes, digest);
    });
  }

  get(): Promise<Cost> {
    return this.#each(async (bytes, index) => {
      const source = { key: `plain/${index}`, etag: this.#etags[index] ?? '', bytes: bytes.length };
      let done = 0;
      for await (const chunk of await this.#service.readRange(source, 0, bytes.length)) done += chunk.length;
      if (done !== bytes.length) throw new Error(`${done} bytes came back of ${bytes.length}`);
    });
  }

  #each(visit: (body: Uint8Array<ArrayBuffer>, index: number) => Promise<void>): Promise<Cost> {
    const left = this.#bodies.entries();
    const worker = async (): Promise<void> => {
      for (const [index, body] of left) await visit(body, index);
    };
    return timed(async () => await Promise.all(Array.from({ length: concurrency }, worker)));
  }
}
