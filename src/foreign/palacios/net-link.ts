/**
 * The connection of `palacios+net:`: `a:IP:PORT` listens and takes one peer, `c:IP:PORT` connects; either end may send. An original
 * neither encrypts nor authenticates, so a connection off this machine has to be asked for as insecure.
 */
import { connect as connectSocket, createServer, isIPv4, type Server, type Socket } from 'node:net';
import { CheckpointError } from '../../errors/index.ts';
import { urlError } from '../../store/url.ts';
import { isLoopback } from '../../transport/address.ts';
import { abortError } from '../../transport/authorise.ts';
import type { Peer } from '../../transport/connection.ts';
import { Link, linkError } from '../../transport/link.ts';
import { SocketChannel } from '../../transport/socket-channel.ts';

export interface PalaciosAddress {
  readonly role: 'listen' | 'connect';
  readonly host: string;
  readonly port: number;
}

export interface PalaciosLinkOptions {
  /** Allows a connection off this machine, which nothing protects. */
  readonly insecure?: boolean | undefined;
  /** Longest time to connect, milliseconds; default 5000. */
  readonly connectMs?: number | undefined;
  /** Longest wait for a peer, of who listens, milliseconds; default: for ever. */
  readonly acceptMs?: number | undefined;
  /** Longest wait for the next byte, milliseconds; default 10 000; 0: for ever. */
  readonly idleMs?: number | undefined;
  /** Told the URL with the real port when peers can come. */
  readonly onListening?: ((url: string) => void) | undefined;
}

/** A connection that can end in a way that tells the peer of it. */
export class PalaciosLink extends Link {
  readonly #channel: SocketChannel;

  #hasEnded = false;

  constructor(channel: SocketChannel, peer: Peer, idleMs: number | undefined) {
    super(channel, { kind: 'checkpoint' }, peer, idleMs);
    this.#channel = channel;
  }

  /**
   * Rejects with `CHKPT_LINK_LOST` after a reset, always: libuv tells of one that comes right behind bytes as of an end in good order.
   * The kernel knows no peer of such a socket any more. (Of one that both have ended neither: then there is nothing left to lose.)
   */
  override async read(target: Uint8Array): Promise<number> {
    const byteCount = await super.read(target);
    if (byteCount > 0 || this.#hasEnded || this.#channel.socket.remoteAddress !== undefined) return byteCount;
    throw new CheckpointError('CHKPT_LINK_LOST', 'the connection was lost: it was reset');
  }

  override async end(): Promise<void> {
    this.#hasEnded = true;
    await super.end();
  }

  /** Ends it as no end in good order does: what was received is not taken. The protocol has no other word for it. */
  reset(): void {
    this.#resetSocket();
    super.destroy();
  }

  /** With an error as `reset`: that a connection ends is all that says that a checkpoint is whole. */
  override destroy(error?: Error): void {
    if (error !== undefined) this.#resetSocket();
    super.destroy(error);
  }

  #resetSocket(): void {
    try {
      this.#channel.socket.resetAndDestroy();
    } catch {
      // It is gone, or no TCP socket.
    }
  }
}

/** Where the signal goes, and what errors name. */
export interface LinkContext {
  readonly url: string;
  readonly signal: AbortSignal | undefined;
}

const connectMsDefault = 5000;
const keepAliveMs = 5000;

/** Reads what stands behind `palacios+net:`. Throws `CHKPT_STORE_URL`. */
export function parsePalaciosAddress(rest: string, url: string): PalaciosAddress {
  const [, role, host = '', digits] = /^([ac]):([0-9.]+):([0-9]{1,5})$/.exec(rest) ?? [];
  const port = Number(digits);
  if (role === undefined || !isIPv4(host) || port > 65_535) {
    throw urlError('write palacios+net:a:IP:PORT to listen, palacios+net:c:IP:PORT to connect', url);
  }
  if (role === 'c' && port === 0) throw urlError('nobody listens at port 0', url);
  return { role: role === 'a' ? 'listen' : 'connect', host, port };
}

/**
 * Waits for the peer. Throws `CHKPT_INSECURE`, `RangeError`; `CHKPT_LINK_LOST`, `CHKPT_TIMEOUT`, `CHKPT_PERMISSION`, `CHKPT_ABORTED`.
 * Aborting ends the link too.
 */
export async function openLink(
  address: PalaciosAddress,
  options: PalaciosLinkOptions,
  { url, signal }: LinkContext,
): Promise<PalaciosLink> {
  for (const ms of [options.connectMs, options.acceptMs, options.idleMs]) {
    if (ms !== undefined && !(Number.isSafeInteger(ms) && ms >= 0))
      throw new RangeError('a time is not a count');
  }
  if (!isLoopback(address.host) && options.insecure !== true) {
    const what = `${address.host} can be reached from other machines, and nothing protects this protocol`;
    throw new CheckpointError('CHKPT_INSECURE', what, { details: { store: url } });
  }
  if (signal?.aborted === true) throw abortError(signal);
  const attempt = new Attempt(address, options, url);
  const onAbort = (): void => attempt.giveUp(abortError(signal));
  signal?.addEventListener('abort', onAbort);
  try {
    const link = await attempt.run();
    const onLateAbort = (): void => link.destroy(abortError(signal));
    signal?.addEventListener('abort', onLateAbort);
    void link.closed.then(() => signal?.removeEventListener('abort', onLateAbort));
    return link;
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
}

class Attempt {
  readonly #address: PalaciosAddress;
  readonly #options: PalaciosLinkOptions;
  readonly #url: string;
  readonly #failed: Promise<never>;
  #fail: (error: CheckpointError) => void = () => undefined;
  #server: Server | undefined;
  #channel: SocketChannel | undefined;

  constructor(address: PalaciosAddress, options: PalaciosLinkOptions, url: string) {
    this.#address = address;
    this.#options = options;
    this.#url = url;
    this.#failed = new Promise((_resolve, reject) => {
      this.#fail = reject;
    });
    this.#failed.catch(() => undefined);
  }

  giveUp(error: CheckpointError): void {
    this.#fail(error);
  }

  async run(): Promise<PalaciosLink> {
    const { role, host, port } = this.#address;
    const { connectMs = connectMsDefault, acceptMs = 0, idleMs } = this.#options;
    const ms = role === 'connect' ? connectMs : acceptMs;
    const late = new CheckpointError('CHKPT_TIMEOUT', `nobody is there within ${ms} ms`);
    const timer = ms === 0 ? undefined : setTimeout(() => this.giveUp(late), ms);
    try {
      const opening = role === 'connect' ? this.#connect() : this.#accept();
      const channel = await Promise.race([opening, this.#failed]);
      const security = isLoopback(host) ? 'local' : 'insecure';
      return new PalaciosLink(channel, { security, remote: `${host}:${port}` }, idleMs);
    } catch (error) {
      this.#channel?.destroy();
      const failure = linkError(error);
      const details = { store: this.#url };
      throw new CheckpointError(failure.code, failure.message, { details, cause: failure.cause ?? failure });
    } finally {
      clearTimeout(timer);
      this.#server?.close();
    }
  }

  async #connect(): Promise<SocketChannel> {
    const { host, port } = this.#address;
    const channel = SocketChannel.ofNew((onread) => connectSocket({ host, port, ...socketOptions, onread }));
    this.#channel = channel;
    await new Promise<void>((resolve, reject) => {
      channel.socket.once('connect', () => resolve());
      channel.socket.once('error', reject);
    });
    return channel;
  }

  /** The first one who comes; nobody else. */
  async #accept(): Promise<SocketChannel> {
    const { host, port } = this.#address;
    const server = createServer({ ...socketOptions, pauseOnConnect: true });
    this.#server = server;
    const socket = await new Promise<Socket>((resolve, reject) => {
      server.once('error', reject);
      let isTaken = false;
      server.on('connection', (one) => {
        if (isTaken) one.destroy();
        isTaken = true;
        server.close();
        resolve(one);
      });
      server.listen({ host, port, backlog: 1 }, () => {
        const bound = server.address();
        const real = typeof bound === 'object' && bound !== null ? bound.port : port;
        this.#options.onListening?.(`palacios+net:a:${host}:${real}`);
      });
    });
    const channel = SocketChannel.ofAccepted(socket);
    this.#channel = channel;
    return channel;
  }
}

const socketOptions = {
  allowHalfOpen: true,
  noDelay: true,
  keepAlive: true,
  keepAliveInitialDelay: keepAliveMs,
} as const;
