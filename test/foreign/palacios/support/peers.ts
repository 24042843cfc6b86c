/**
 * An original at the other end of a connection, in all four roles, and what it makes of a migration. It says nothing back, pairs frames
 * by position, and closes when it has what it wants.
 */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { type Blob, type Group, key, pattern, record } from './original.ts';

/** Bytes of a connection, taken apart: context, records, and the name in the frame that closes it. */
export type WireGroup = readonly [name: string, blobs: readonly Blob[], close: string];

export function groupsIn(bytes: Buffer): WireGroup[] {
  const groups: WireGroup[] = [];
  let at = 0;
  const take = (count: number): Buffer => {
    if (at + count > bytes.length) throw new Error(`the stream ends at ${at}`);
    at += count;
    return bytes.subarray(at - count, at);
  };
  const name = (): string => {
    const head = take(2);
    if (head.readInt8(0) < 0 || (head.readUInt8(1) & 0x80) === 0) throw new Error(`no key frame at ${at}`);
    return take(head.readUInt8(0) + 256 * (head.readUInt8(1) & 0x7f)).toString('latin1');
  };
  while (at < bytes.length) {
    const opened = name();
    const blobs: Blob[] = [];
    while (bytes.readUInt32LE(at) === 0xabcd0123) {
      take(4);
      const tag = take(Number(take(8).readBigInt64LE())).toString('latin1');
      blobs.push([tag, new Uint8Array(take(Number(take(8).readBigInt64LE())))]);
    }
    groups.push([opened, blobs, name()]);
  }
  return groups;
}

/** Everything that a peer sends until it ends. */
export async function drain(socket: Socket): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of socket) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

/** Takes all of it, and ends without good order. */
export async function drainAndReset(socket: Socket): Promise<void> {
  socket.resume();
  await once(socket, 'end');
  socket.resetAndDestroy();
}

/** An original that waits at a port of its own: `serve` is given the one who comes. */
export async function originalListens<T>(
  serve: (socket: Socket) => Promise<T>,
): Promise<{ readonly url: string; readonly result: Promise<T> }> {
  const server = createServer({ allowHalfOpen: true });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const result = (async () => {
    const [socket] = (await once(server, 'connection')) as [Socket];
    // A receiver that does not take what comes resets the connection.
    socket.on('error', () => undefined);
    server.close();
    try {
      return await serve(socket);
    } finally {
      socket.end();
    }
  })();
  result.catch(() => undefined);
  return { url: `palacios+net:c:127.0.0.1:${port}`, result };
}

/** An original that comes to `palacios+net:a:IP:PORT`. */
export async function originalConnects<T>(url: string, serve: (socket: Socket) => Promise<T>): Promise<T> {
  const [, host, port] = /:([0-9.]+):([0-9]+)$/.exec(url) ?? [];
  const socket = connect({ host: String(host), port: Number(port), allowHalfOpen: true });
  await once(socket, 'connect');
  socket.on('error', () => undefined);
  try {
    return await serve(socket);
  } finally {
    socket.end();
  }
}

/** Sends in many small pieces, as an original does. */
export async function dribble(socket: Socket, bytes: Buffer, pieceBytes = 1000): Promise<void> {
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    if (!socket.write(bytes.subarray(at, at + pieceBytes))) await once(socket, 'drain');
  }
}

/** A round of a migration on the wire. */
export function roundOf(pageCount: number, pages: ReadonlyMap<number, Uint8Array>): Buffer {
  const bits = Buffer.alloc(Math.ceil(pageCount / 8));
  for (const page of pages.keys()) bits[page >> 3] = (bits[page >> 3] ?? 0) | (1 << (page & 7));
  const ascending = [...pages].sort(([left], [right]) => left - right);
  return Buffer.concat([
    frame('memory_bitmap_bits', bits),
    ...ascending.map(([, content]) => frame('memory_page', content)),
  ]);
}

export function frame(name: string, data: Uint8Array): Buffer {
  return Buffer.concat([key(name), record([name, data]), key(name)]);
}

export interface Arrived {
  readonly memory: Buffer;
  /** Pages of each round. */
  readonly rounds: readonly number[];
  /** What came after memory. */
  readonly rest: readonly WireGroup[];
}

/** What an original receiver with so many pages makes of a stream. */
export function receiveMigration(bytes: Buffer, pageCount: number): Arrived {
  const groups = groupsIn(bytes);
  const memory = Buffer.alloc(pageCount * 4096);
  const rounds: number[] = [];
  for (let at = 0; ; ) {
    const [name, [blob]] = groups[at] ?? ['', []];
    if (name !== 'memory_bitmap_bits' || blob === undefined) throw new Error(`no bitmap: ${name}`);
    if (blob[1].length !== Math.ceil(pageCount / 8)) throw new Error('a bitmap of another length');
    at += 1;
    const pages = Array.from({ length: pageCount }, (_, page) => page).filter(
      (page) => ((blob[1][page >> 3] ?? 0) & (1 << (page & 7))) !== 0,
    );
    if (pages.length === 0) return { memory, rounds, rest: groups.slice(at) };
    rounds.push(pages.length);
    for (const page of pages) {
      const [context, [content]] = groups[at] ?? ['', []];
      if (context !== 'memory_page' || content?.[0] !== 'memory_page' || content[1].length !== 4096) {
        throw new Error(`no page: ${context}`);
      }
      memory.set(content[1], page * 4096);
      at += 1;
    }
  }
}

/** A migration of `pageCount` pages as an original sends it, and the memory that must come of it. */
export function sendMigration(
  pageCount: number,
  state: readonly Group[],
  seed = 1,
): { bytes: Buffer; memory: Buffer } {
  const memory = Buffer.alloc(pageCount * 4096);
  const rounds: Buffer[] = [];
  for (const [round, step] of [1, 3, 11].entries()) {
    const pages = new Map<number, Uint8Array>();
    for (let page = 0; page < pageCount; page += step) {
      const content = page % 5 === 4 ? new Uint8Array(4096) : pattern(seed + round * 10_000 + page, 4096);
      pages.set(page, content);
      memory.set(content, page * 4096);
    }
    rounds.push(roundOf(pageCount, pages));
  }
  const end = roundOf(pageCount, new Map());
  const groups = state.map(([name, blobs]) =>
    Buffer.concat([
      key(name),
      ...blobs.map(record),
      key(blobs.some(([tag]) => tag === 'BAR-5') ? 'BAR-5' : name),
    ]),
  );
  return { bytes: Buffer.concat([...rounds, end, ...groups]), memory };
}
