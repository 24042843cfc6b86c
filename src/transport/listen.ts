/**
 * The listening end. Many may try; who authenticates is handed out, in that order, and everybody else leaves the listener as it was.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { CheckpointError } from '../errors/index.ts';
import { unauthenticatedBytesMax } from '../limits.ts';
import { type Deferred, deferred } from '../util/deferred.ts';
import { type Address, formatAddress, parseAddress } from './address.ts';
import { abortError, isAuthorised } from './authorise.ts';
import type { Connection, Peer, PeerIdentity } from './connection.ts';
import { receiveGuest, refuse } from './handshake.ts';
import { Link, linkError } from './link.ts';
import { OneTimeKey } from './one-time-key.ts';
import { handshakeMsDefault, keepAliveMs, type ListenOptions } from './options.ts';
import type { Purpose } from './purpose.ts';
import { resolveEndpoint } from './resolve.ts';
import { planSecurity, type SecurityPlan } from './security.ts';
import { SocketChannel } from './socket-channel.ts';
import { certificateContext, identityOf, keyingMaterial, pskContext, pskOfIdentity } from './tls-setup.ts';
import { clearUnixPath, listenPrivately } from './unix-path.ts';
import { type Visitor, WaitingRoom } from './waiting-room.ts';

/** Takes connections at one address. */
export interface Listener extends AsyncDisposable {
  /** The address, with the real port. */
  readonly address: string;
  /**
   * The next authenticated connection. Rejects with `CHKPT_CLOSED` after `close()`, with `CHKPT_ABORTED`. May be called several times
   * without waiting.
   */
  accept(): Promise<Connection>;
  /** Takes no more; connections that were handed out stay. A UNIX socket's file is removed. Does nothing when called again. */
  close(): Promise<void>;
}

/**
 * Listens. Resolves when connections can come.
 *
 * Throws `TypeError`, `RangeError` and `CHKPT_INSECURE` before anything is opened; `CHKPT_LINK_LOST` when nobody knows the host,
 * `CHKPT_IO`, `CHKPT_PERMISSION` when the address cannot be had.
 */
export async function listen(text: string, options: ListenOptions = {}): Promise<Listener> {
  const address = parseAddress(text);
  const { signal, accepts } = options;
  if (accepts !== undefined && !(Number.isInteger(accepts) && accepts > 0)) {
    throw new RangeError('accepts is not a positive number');
  }
  const { where, isLocal } = await resolveEndpoint(address);
  const plan = planSecurity(address, isLocal, options, 'listen');
  if (signal?.aborted === true) throw abortError(signal);
  if (address.scheme === 'unix') await clearUnixPath(address.path);
  const listener = new SocketListener(address, plan, options);
  await listener.open(where);
  return listener;
}

const backlogDefault = 64;
/** How long a refusal may take to get through. */
const refusalMs = 1000;
/** How often is looked at how much came that TLS has not let through. */
const countMs = 50;

class SocketListener implements Listener {
  readonly #options: ListenOptions;
  readonly #plan: SecurityPlan;
  readonly #server: Server;
  readonly #room = new WaitingRoom();
  readonly #key: OneTimeKey | undefined;
  /** TLS: who is behind a socket that is not secured yet, by address and port. */
  readonly #unsecured = new Map<string, { readonly visitor: Visitor; readonly counting: NodeJS.Timeout }>();
  readonly #ready: Connection[] = [];
  readonly #waiting: Deferred<Connection>[] = [];
  readonly #onAbort = (): void => void this.#close(abortError(this.#options.signal));
  #address: Address;
  #taken = 0;
  /** Admitted, and not handed out yet. */
  #coming = 0;
  #ended: CheckpointError | undefined;

  constructor(address: Address, plan: SecurityPlan, options: ListenOptions) {
    this.#address = address;
    this.#plan = plan;
    this.#options = options;
    const { psk, signal } = options;
    if (plan.proof && psk !== undefined) this.#key = new OneTimeKey(psk);
    this.#server = plan.channel === 'plain' ? this.#plainServer() : this.#tlsServer();
    signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  get address(): string {
    return formatAddress(this.#address);
  }

  async open(
    where: { readonly path: string } | { readonly host: string; readonly port: number },
  ): Promise<void> {
    const server = this.#server;
    const listening = new Promise<void>((resolve, reject) => {
      server.once('listening', resolve);
      server.once('error', reject);
    });
    if ('path' in where) listenPrivately(where.path, () => void server.listen({ path: where.path }));
    else server.listen(where);
    try {
      await listening;
    } catch (error) {
      await this.close();
      throw listenError(error, this.address);
    }
    // Running out of descriptors is no reason to end: the next one may be lucky.
    server.on('error', () => undefined);
    const bound = server.address();
    if (this.#address.scheme !== 'unix' && typeof bound === 'object' && bound !== null) {
      this.#address = { ...this.#address, port: bound.port };
    }
  }

  async accept(): Promise<Connection> {
    const ready = this.#ready.shift();
    if (ready !== undefined) return ready;
    if (this.#ended !== undefined) throw this.#ended;
    const waiting = deferred<Connection>();
    this.#waiting.push(waiting);
    return await waiting.promise;
  }

  async close(): Promise<void> {
    await this.#close(new CheckpointError('CHKPT_CLOSED', 'the listener was closed'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(why: CheckpointError): Promise<void> {
    if (this.#ended !== undefined) return;
    this.#ended = why;
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    // The address is free at once; sockets in use do not matter to that.
    this.#server.close();
    this.#room.dismissAll('the listener was closed');
    for (const connection of this.#ready.splice(0)) connection.destroy(why);
    for (const waiting of this.#waiting.splice(0)) waiting.reject(why);
  }

  #plainServer(): Server {
    const socketOptions = { allowHalfOpen: true, noDelay: true, keepAlive: true };
    const server = createServer({
      ...socketOptions,
      pauseOnConnect: true,
      keepAliveInitialDelay: keepAliveMs,
    });
    server.on('connection', (socket) => {
      const remote = remoteOf(socket);
      const channel = SocketChannel.ofAccepted(socket);
      const visitor = this.#enter(remote, (why) => channel.destroy(why));
      void channel.closed.then(() => this.#room.leave(visitor));
      void this.#welcome(channel, visitor, remote, new Uint8Array(), undefined);
    });
    return server;
  }

  #tlsServer(): Server {
    const { tls } = this.#options;
    const { handshakeMs = handshakeMsDefault } = this.#options;
    const key = this.#key?.keys;
    const isCertified = this.#plan.channel === 'tls' && tls !== undefined;
    const security = isCertified
      ? certificateContext(tls)
      : { ...pskContext(), ...(key && { pskCallback: pskOfIdentity(key) }) };
    const server = createTlsServer({ ...security, allowHalfOpen: true, handshakeTimeout: handshakeMs });
    server.on('connection', (socket: Socket) => this.#admitUnsecured(socket));
    server.on('tlsClientError', (error: NodeJS.ErrnoException, socket) => {
      const reason = socket.authorizationError ?? error.code ?? error.message;
      this.#tell(new CheckpointError('CHKPT_UNAUTHENTICATED', `TLS: ${reason}`), remoteOf(socket));
    });
    server.on('secureConnection', (socket: TLSSocket) => this.#admitSecured(socket));
    return server;
  }

  #admitUnsecured(socket: Socket): void {
    const remote = remoteOf(socket);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, keepAliveMs);
    const visitor = this.#enter(remote, (why) => {
      socket.destroy();
      this.#tell(why, remote);
    });
    // TLS takes what comes before this side sees any of it.
    const counting = setInterval(() => {
      if (socket.bytesRead <= unauthenticatedBytesMax) return;
      this.#room.dismiss(visitor, 'too much was sent before TLS let it through');
    }, countMs);
    this.#unsecured.set(remote, { visitor, counting });
    socket.once('close', () => {
      this.#room.leave(visitor);
      clearInterval(counting);
      if (this.#unsecured.get(remote)?.visitor === visitor) this.#unsecured.delete(remote);
    });
  }

  #admitSecured(socket: TLSSocket): void {
    const remote = remoteOf(socket);
    const channel = SocketChannel.ofEvents(socket);
    const entry = this.#unsecured.get(remote);
    if (entry === undefined) return void channel.destroy();
    this.#unsecured.delete(remote);
    clearInterval(entry.counting);
    void this.#welcome(channel, entry.visitor, remote, keyingMaterial(socket), identityOf(socket));
  }

  #enter(remote: string, dismiss: Visitor['dismiss']): Visitor {
    const { handshakeMs = handshakeMsDefault } = this.#options;
    return this.#room.enter(hostOf(remote), handshakeMs, dismiss);
  }

  async #welcome(
    channel: SocketChannel,
    visitor: Visitor,
    remote: string,
    material: Uint8Array,
    identity: PeerIdentity | undefined,
  ): Promise<void> {
    const { idleMs } = this.#options;
    let isAdmitted = false;
    try {
      const purpose = await receiveGuest(channel, {
        ...{ key: this.#key, material },
        authorise: (asked) => this.#authorise(identity, asked),
        admit: (asked) => {
          const no = this.#admit(asked);
          isAdmitted = no === undefined;
          return no;
        },
      });
      this.#room.leave(visitor);
      const peer: Peer = { security: this.#plan.security, remote, ...(identity && { identity }) };
      this.#hand(new Link(channel, purpose, peer, idleMs));
    } catch (error) {
      // It was gone before it heard that it is welcome: its place is free again.
      if (isAdmitted) this.#taken -= 1;
      if (isAdmitted) this.#coming -= 1;
      this.#tell(error, remote);
      await this.#refuse(channel, error);
      this.#room.leave(visitor);
    }
  }

  async #authorise(identity: PeerIdentity | undefined, purpose: Purpose): Promise<string | undefined> {
    const { tls } = this.#options;
    if (this.#plan.channel !== 'tls') return undefined;
    const is = tls?.authorise !== undefined && (await isAuthorised(tls.authorise, identity, purpose));
    return is ? undefined : 'this certificate may not do that here';
  }

  /** In one go: of two that come at once one is first. */
  #admit(purpose: Purpose): string | undefined {
    if (this.#ended !== undefined) return 'the listener is closing';
    if (this.#taken >= (this.#options.accepts ?? Number.POSITIVE_INFINITY)) return 'somebody else was first';
    const { backlog = backlogDefault } = this.#options;
    if (this.#coming + this.#ready.length >= this.#waiting.length + backlog) return 'busy with another one';
    if (purpose.kind === 'probe') {
      const { probe = () => 'nothing is measured here' } = this.#options;
      const no = probe(purpose);
      if (no !== undefined) return no;
    }
    this.#taken += 1;
    this.#coming += 1;
    return undefined;
  }

  #hand(connection: Connection): void {
    this.#coming -= 1;
    const waiting = this.#waiting.shift();
    if (this.#ended !== undefined) connection.destroy(this.#ended);
    else if (waiting === undefined) this.#ready.push(connection);
    else waiting.resolve(connection);
  }

  /** Says why, waits for the other end to hang up, so that its reason is not lost to a reset, and hangs up in any case. */
  async #refuse(channel: SocketChannel, error: unknown): Promise<void> {
    const timer = setTimeout(() => channel.destroy(), refusalMs);
    try {
      await refuse(channel, error);
      const rest = Buffer.alloc(1024);
      for (let count = 0; count < unauthenticatedBytesMax; ) {
        const byteCount = await channel.read(rest);
        if (byteCount === 0) break;
        count += byteCount;
      }
    } catch {
      // It has gone.
    } finally {
      clearTimeout(timer);
      channel.destroy();
    }
  }

  #tell(error: unknown, remote: string): void {
    this.#options.onRefusal?.(linkError(error), remote);
  }
}

/** IP address and port. */
function remoteOf({ remoteAddress, remotePort }: Socket): string {
  return remoteAddress === undefined ? 'unix' : `${remoteAddress}:${remotePort}`;
}

function hostOf(remote: string): string {
  return remote.replace(/:\d+$/, '');
}

function listenError(error: unknown, address: string): CheckpointError {
  const errno = typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : '';
  const code = errno === 'EACCES' || errno === 'EPERM' ? 'CHKPT_PERMISSION' : 'CHKPT_IO';
  return new CheckpointError(code, `cannot listen: ${errno}`, { details: { store: address }, cause: error });
}
