/** Memory that a checkpoint does not hold is in no byte of the formats of others either. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import {
  GuestMemory,
  loadVm,
  openPalaciosStore,
  openStore,
  type Store,
  saveVm,
  type VirtualMachine,
} from '../../src/index.ts';
import { makeFolder } from '../store/support/folders.ts';
import { noise } from '../store/support/sample-stream.ts';

const pageBytes = 4096;
const secretPage = 50;

function machineOf(memory: GuestMemory): VirtualMachine {
  return {
    ...{ id: 'vm', cpu: { vendor: 'none', model: 'none' }, memory, cores: [], devices: [], running: false },
    pause: async () => undefined,
    resume: async () => undefined,
    beginLoad: () => undefined,
    endLoad: () => undefined,
  };
}

/** Palacios pads memory to whole blocks, of 128 MiB unless it is told otherwise. */
const storeAt = (scheme: string, path: string): Store =>
  scheme === 'gem5'
    ? openStore(`gem5:${path}`)
    : openPalaciosStore(`${scheme}:${path}`, { blockBytes: 16 * pageBytes });

const isDigit = Array.from({ length: 256 }, (_, code) => /[0-9a-fA-F]/.test(String.fromCharCode(code)));

/** Everything that lies at `path`; memory that gem5 has packed is unpacked, digits of text are bytes. */
function contentAt(path: string): Buffer {
  if (statSync(path).isDirectory())
    return Buffer.concat(readdirSync(path).map((name) => contentAt(join(path, name))));
  const bytes = readFileSync(path);
  if (path.endsWith('.pmem')) return gunzipSync(bytes);
  if (bytes.includes(0)) return bytes;
  const digits = Buffer.from(bytes.filter((byte) => isDigit[byte])).toString('latin1');
  return Buffer.concat([bytes, ...[digits, digits.slice(1)].map((text) => Buffer.from(text, 'hex'))]);
}

test.each(['gem5', 'palacios+file', 'palacios+textfile', 'palacios+dir'])('%s:', async (scheme) => {
  const folder = makeFolder();
  const bytes = 256 * 1024;
  const memory = GuestMemory.allocate([{ base: 0n, bytes: BigInt(bytes) }]);
  const secret = noise('secret', pageBytes);
  memory.write(10 * pageBytes, noise('other', 20 * pageBytes));
  memory.write(secretPage * pageBytes, secret);
  const other = memory.read(10 * pageBytes, 64);
  const found: boolean[] = [];
  for (const scrub of [[], [{ base: secretPage * pageBytes, bytes: pageBytes }]]) {
    const path = `${folder}/${scrub.length}`;
    await saveVm(machineOf(memory), storeAt(scheme, path), { scrub });
    const content = contentAt(path);
    expect(content.includes(Buffer.from(other))).toBe(true);
    found.push(
      [0, 1000, 2000, 4000].some((at) => content.includes(Buffer.from(secret.subarray(at, at + 32)))),
    );
  }
  // The first one shows that it would be seen.
  expect(found).toEqual([true, false]);
  const target = GuestMemory.allocate([{ base: 0n, bytes: BigInt(bytes) }]);
  target.write(secretPage * pageBytes, noise('before', pageBytes));
  await loadVm(machineOf(target), storeAt(scheme, `${folder}/1`));
  expect(target.read(secretPage * pageBytes, pageBytes).every((byte) => byte === 0)).toBe(true);
  memory.write(secretPage * pageBytes, new Uint8Array(pageBytes));
  expect(await target.digest()).toBe(await memory.digest());
  for (const one of [memory, target]) await one.close();
});
