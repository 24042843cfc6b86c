/** Stands between source and destination and cuts their connections at a byte of a message, in one of four ways. */
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { Conversation, Dialogue, type Direction, type Message, MessageReader } from './named-messages.ts';

/**
 * rst: both ends of the connection are reset. fin: the receiver is told that nothing follows, and the sender nothing; the other direction goes
 * on. hole: nothing follows, not even an end, and nobody is told; the other direction goes on. silence: all connections that there are become holes in
 * both directions.
 */
export const ways = ['rst', 'fin', 'hole', 'silence'] as const;
export type Way = (typeof ways)[number];

/** A kind of message of one kind of connection. */
export interface Place {
  readonly channel: string;
  readonly direction: Direction;
  readonly kind: string;
}

/** At the first such message. */
export interface Cut extends Place {
  /** Bytes of the message that get through; a cut at 0 comes when the message comes, one at the end at once. */
  readonly at: number | 'middle' | 'end';
  readonly way: Way;
}

export const textOf = ({ channel, direction, kind }: Place): string => `${channel} ${direction} ${kind}`;

interface Join {
  readonly client: Socket;
  readonly server: Socket;
  readonly dialogue: Dialogue;
  readonly holes: Set<Direction>;
  /** How many cuts there had been when it was made. */
  readonly cutCount: number;
}

export interface ProxyOptions {
  readonly target: string;
  /** Where it listens itself: a path; undefined: a port beside the target's. */
  readonly path?: string | undefined;
  readonly isTls?: boolean | undefined;
  /** Each one counts for connections that were made after the one before it. */
  readonly cuts: readonly Cut[];
  /** Whole messages. */
  readonly onMessage?: ((place: Place, message: Message, cutCount: number) => void) | undefined;
}

export class CutProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #options: ProxyOptions;
  readonly #sockets = new Set<Socket>();
  readonly #joins = new Set<Join>();
  readonly #conversation = new Conversation();
  /** Cuts so far. */
  cutCount = 0;

  private constructor(server: Server, options: ProxyOptions) {
    this.#server = server;
    this.#options = options;
    server.on('connection', (socket) => this.#join(socket));
  }

  static async open(options: ProxyOptions): Promise<CutProxy> {
    const server = createServer({ allowHalfOpen: true, noDelay: true });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.once('listening', resolve);
      if (options.path === undefined) server.listen(0, hostOf(options.target));
      else server.listen(options.path);
    });
    return new CutProxy(server, options);
  }

  get address(): string {
    const address = this.#server.address() as AddressInfo | string;
    if (typeof address === 'string') return `unix:${address}`;
    return `${this.#options.target.split(':')[0]}://${address.address}:${address.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #join(client: Socket): void {
    const { target, isTls = false } = this.#options;
    const [scheme, rest = ''] = target.split(/:(?:\/\/)?(.*)/s);
    const where =
      scheme === 'unix'
        ? { path: rest }
        : { host: hostOf(target), port: Number(rest.slice(rest.lastIndexOf(':') + 1)), noDelay: true };
    const server = connect({ ...where, allowHalfOpen: true });
    for (const socket of [client, server]) {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    }
    const dialogue = new Dialogue(this.#conversation, isTls);
    const join: Join = { client, server, dialogue, holes: new Set(), cutCount: this.cutCount };
    this.#joins.add(join);
    this.#forward(join, 'toDestination');
    this.#forward(join, 'toSource');
  }

  #forward(join: Join, direction: Direction): void {
    const [from, to] =
      direction === 'toDestination' ? [join.client, join.server] : [join.server, join.client];
    const reader = new MessageReader(join.dialogue, direction);
    const isHole = (): boolean => join.holes.has(direction);
    from.on('data', (bytes) => {
      if (isHole()) return;
      for (const { message, at, bytes: piece } of reader.take(bytes)) {
        const place = { channel: join.dialogue.channel, direction, kind: message.kind };
        const room = this.#roomOf(join, place, message, at, piece.length);
        to.write(piece.subarray(0, room));
        if (room !== undefined) return this.#cut(join, direction, to);
        const isWhole = at + piece.length === message.totalBytes;
        if (isWhole) this.#options.onMessage?.(place, message, join.cutCount);
      }
    });
    from.on('end', () => isHole() || to.end());
    from.on('error', () => isHole() || hangUp(to));
    from.on('close', () => {
      this.#joins.delete(join);
      if (!isHole()) to.end();
    });
  }

  /** How much of the piece gets through; undefined: all of it, and what follows. */
  #roomOf(join: Join, place: Place, message: Message, at: number, length: number): number | undefined {
    const cut = this.#options.cuts[this.cutCount];
    if (cut === undefined || join.cutCount !== this.cutCount || textOf(cut) !== textOf(place))
      return undefined;
    const { headerBytes, totalBytes } = message;
    const middle = headerBytes + Math.ceil((totalBytes - headerBytes) / 2);
    const room = (cut.at === 'end' ? totalBytes : cut.at === 'middle' ? middle : cut.at) - at;
    const isHere = room >= 0 && (room < length || (room === length && at + length === totalBytes));
    return isHere ? room : undefined;
  }

  #cut(join: Join, direction: Direction, to: Socket): void {
    const { way } = this.#options.cuts[this.cutCount] as Cut;
    this.cutCount += 1;
    if (way === 'silence') {
      for (const one of this.#joins) one.holes.add('toDestination').add('toSource');
      return;
    }
    join.holes.add(direction);
    if (way === 'fin') to.end();
    if (way !== 'rst') return;
    join.holes.add('toDestination').add('toSource');
    // What was written before is read before: a reset takes along what waits in the kernel.
    setTimeout(() => {
      hangUp(join.client);
      hangUp(join.server);
    }, 10);
  }
}

/** Of `tcp://HOST:PORT`. */
function hostOf(target: string): string {
  return target.slice(target.indexOf('//') + 2, target.lastIndexOf(':'));
}

/** With a reset, where there is such a thing. `resetAndDestroy` would end it first; one that is being ended would never be closed. */
function hangUp(socket: Socket): void {
  const { _handle: handle } = socket as unknown as {
    _handle?: { reset?: (done: () => void) => number } | null;
  };
  if (!socket.writableEnded) handle?.reset?.(() => undefined);
  socket.destroy();
}
