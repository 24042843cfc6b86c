/** Where the demo keeps its checkpoint, and how it damages it. */
import { mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { size } from './terminal.mjs';

const tmpfsType = 0x0102_1994;
const marginBytes = 256 * 1024 * 1024;

/**
 * Makes a folder on a disk with room for `bytes`: TMPDIR or the system's temporary folder first, then
 * /var/tmp, then the current folder. A folder in memory (tmpfs) is the last choice: it would take the
 * guest's.
 */
export function makeFolder(bytes) {
  const rooms = [tmpdir(), '/var/tmp', process.cwd()].flatMap((path) => {
    try {
      const { bavail, bsize, type } = statfsSync(path);
      return [{ path, bytes: bavail * bsize, isMemory: type === tmpfsType }];
    } catch {
      return [];
    }
  });
  const fitting = rooms.filter((room) => room.bytes >= bytes + marginBytes);
  for (const { path } of [...fitting.filter((room) => !room.isMemory), ...fitting]) {
    try {
      const folder = mkdtempSync(join(path, 'chkpt-demo-'));
      return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
    } catch {
      // Not writable: the next one.
    }
  }
  const found = rooms.map((room) => `${room.path} has ${size(room.bytes)}`).join(', ');
  throw new Error(`no folder with ${size(bytes)} of room (${found}): set TMPDIR, or use --gib or --store`);
}

/**
 * Inverts one bit in the middle of a checkpoint on disk. `restore()` puts it right again. Undefined for a
 * store that is not made of files.
 */
export async function damage(url) {
  const path = await fileOf(url);
  if (path === undefined) return undefined;
  const offset = Math.floor((await stat(path)).size / 2);
  const invert = async () => {
    const file = await open(path, 'r+');
    try {
      const { buffer } = await file.read(Buffer.alloc(1), 0, 1, offset);
      buffer[0] ^= 1;
      await file.write(buffer, 0, 1, offset);
    } finally {
      await file.close();
    }
  };
  await invert();
  return { offset, restore: invert };
}

/** The file of a `file:` checkpoint, or the largest one of a `dir:` checkpoint. */
async function fileOf(url) {
  const [, scheme, rest] = /^(?:(file|dir):)?(.*)$/s.exec(url);
  if (scheme === undefined && /^[a-z][a-z0-9+.-]+:/i.test(url)) return undefined;
  const path = rest.startsWith('//') ? fileURLToPath(`file:${rest}`) : rest;
  if (scheme !== 'dir') return path;
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.path, entry.name));
  const sizes = await Promise.all(files.map(async (name) => (await stat(name)).size));
  return files[sizes.indexOf(Math.max(...sizes))];
}
