/** Stands between source and destination: counts bytes, and breaks connections where it is told to. */

import { connect, createServer, type Server, type Socket } from 'node:net';
import { recordHeaderBytes, recordTypes } from '../../src/migration/wire/record.ts';

/** Where a link breaks. */
export interface Cut {
  /** Which connection: 0 is control. */
  readonly connection: number;
  readonly direction: 'toDestination' | 'toSource';
  /** When the next byte after so many in that direction would come. */
  readonly afterBytes: number;
  /** `reset` destroys all connections; `silence` lets nothing through any more, in both directions. */
  readonly how: 'reset' | 'silence';
  /** Whether connections may be made afterwards; `heal` lets them. */
  readonly staysDown?: boolean;
}

/** Comes when a second has passed, wherever that is: counted, it would move the places of everything behind it. */
function isAlive(bytes: Buffer): boolean {
  return bytes.length === recordHeaderBytes && bytes.readUInt16LE(4) === recordTypes.indexOf('alive');
}

export class LinkProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #target: string;
  readonly #sockets = new Set<Socket>();
  readonly #broken = new WeakSet<Socket>();
  #cut: Cut | undefined;
  #onCut: (() => void) | undefined;
  #connections = 0;
  #isDown = false;
  #isSilent = false;
  readonly address: string;
  /** Bytes of the control connection that got through, of the first link. */
  readonly control = { toDestination: 0, toSource: 0 };
  /** Offsets at which a write of the control connection ended. */
  readonly boundaries = { toDestination: [0], toSource: [0] };
  hasCut = false;

  private constructor(server: Server, path: string, target: string, cut: Cut | undefined) {
    this.#server = server;
    this.address = `unix:${path}`;
    this.#target = target;
    this.#cut = cut;
    server.on('connection', (socket) => this.#pipe(socket));
  }

  static async open(path: string, target: string, cut?: Cut, onCut?: () => void): Promise<LinkProxy> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
    const proxy = new LinkProxy(server, path, target.replace(/^unix:/, ''), cut);
    proxy.#onCut = onCut;
    return proxy;
  }

  /** From now on connections can be made again. */
  heal(): void {
    this.#isDown = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #pipe(client: Socket): void {
    if (this.#isDown) return void client.destroy();
    const index = this.#connections;
    this.#connections += 1;
    const server = connect(this.#target);
    for (const socket of [client, server]) {
      this.#sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => this.#sockets.delete(socket));
    }
    client.on('close', () => server.destroy());
    server.on('close', () => client.destroy());
    this.#forward(client, server, index, 'toDestination');
    this.#forward(server, client, index, 'toSource');
  }

  #forward(from: Socket, to: Socket, index: number, direction: Cut['direction']): void {
    let passed = 0;
    from.on('data', (bytes) => {
      if (this.#isSilent || this.#broken.has(from)) return;
      if (isAlive(bytes)) return void to.write(bytes);
      const cut = this.#cut;
      const isHere = cut !== undefined && cut.connection === index && cut.direction === direction;
      const rest = isHere ? Math.max(0, cut.afterBytes - passed) : bytes.length;
      const piece = bytes.subarray(0, rest);
      passed += piece.length;
      if (index === 0) {
        this.control[direction] += piece.length;
        this.boundaries[direction].push(this.control[direction]);
      }
      if (piece.length > 0 && !to.write(piece)) {
        from.pause();
        to.once('drain', () => from.resume());
      }
      if (isHere && piece.length < bytes.length) this.#break(cut);
    });
  }

  #break(cut: Cut): void {
    this.#cut = undefined;
    this.hasCut = true;
    this.#onCut?.();
    this.#isDown = cut.staysDown === true;
    if (cut.how === 'silence') {
      this.#isSilent = true;
      return;
    }
    // What was written before is let through, and nothing else.
    const sockets = [...this.#sockets];
    for (const socket of sockets) this.#broken.add(socket);
    setImmediate(() => {
      for (const socket of sockets) socket.destroy();
    });
  }

  /** After a silence: the connections are gone, and new ones get through. */
  endSilence(): void {
    this.#isSilent = false;
    for (const socket of this.#sockets) socket.destroy();
  }
}
