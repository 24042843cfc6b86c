/** The connecting end: resolve, decide, connect, TLS, handshake, all within one deadline. */
import { connect as connectSocket, isIP, type Socket } from 'node:net';
import { type ConnectionOptions, checkServerIdentity, connect as connectTls, type TLSSocket } from 'node:tls';
import { CheckpointError } from '../errors/index.ts';
import { type Address, formatAddress, parseAddress } from './address.ts';
import { abortError, isAuthorised } from './authorise.ts';
import type { Connection, Peer, PeerIdentity } from './connection.ts';
import { greet } from './handshake.ts';
import { Link, linkError } from './link.ts';
import { DerivedKeys } from './one-time-key.ts';
import { handshakeMsDefault, keepAliveMs, type LinkOptions } from './options.ts';
import { checkPurpose, type Purpose } from './purpose.ts';
import { type Endpoint, resolveEndpoint } from './resolve.ts';
import { planSecurity, type SecurityPlan } from './security.ts';
import { SocketChannel } from './socket-channel.ts';
import { tlsError } from './tls-errors.ts';
import { certificateContext, identityOf, keyingMaterial, pskContext } from './tls-setup.ts';

/**
 * Connects to a listener and proves what it asks for. Resolves when the listener has taken the connection.
 *
 * Throws `TypeError`, `RangeError` and `CHKPT_INSECURE` before anything is sent; `CHKPT_LINK_LOST`, `CHKPT_TIMEOUT`,
 * `CHKPT_UNAUTHENTICATED`, `CHKPT_PEER_REFUSED`, `CHKPT_PEER_PROTOCOL`, `CHKPT_PERMISSION`, `CHKPT_ABORTED`.
 */
export async function connect(
  text: string,
  purpose: Purpose,
  options: LinkOptions = {},
): Promise<Connection> {
  const address = parseAddress(text);
  checkPurpose(purpose);
  if (address.scheme !== 'unix' && address.port === 0)
    throw new TypeError(`${text}: nobody listens at port 0`);
  const { signal } = options;
  throwIfAborted(signal);
  const endpoint = await resolveEndpoint(address);
  const plan = planSecurity(address, endpoint.isLocal, options, 'connect');
  throwIfAborted(signal);
  return await new Attempt(address, endpoint, plan, purpose, options).run();
}

class Attempt {
  readonly #address: Address;
  readonly #endpoint: Endpoint;
  readonly #plan: SecurityPlan;
  readonly #purpose: Purpose;
  readonly #options: LinkOptions;
  #channel: SocketChannel | undefined;
  #failure: CheckpointError | undefined;
  /** TLS is up: what fails now may be the other side's no, which it cannot always say in words. */
  #isSecured = false;

  constructor(
    address: Address,
    endpoint: Endpoint,
    plan: SecurityPlan,
    purpose: Purpose,
    options: LinkOptions,
  ) {
    this.#address = address;
    this.#endpoint = endpoint;
    this.#plan = plan;
    this.#purpose = purpose;
    this.#options = options;
  }

  async run(): Promise<Connection> {
    const { signal, handshakeMs = handshakeMsDefault } = this.#options;
    const onAbort = (): void => this.#giveUp(abortError(signal));
    const onLate = (): void =>
      this.#giveUp(new CheckpointError('CHKPT_TIMEOUT', `no connection within ${handshakeMs} ms`));
    const timer = setTimeout(onLate, handshakeMs);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      return await this.#connect();
    } catch (error) {
      this.#channel?.destroy();
      throw this.#describe(this.#failure ?? error);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    }
  }

  #giveUp(error: CheckpointError): void {
    this.#failure ??= error;
    this.#channel?.destroy();
  }

  async #connect(): Promise<Connection> {
    const { psk, idleMs } = this.#options;
    const { proof, channel: kind, security } = this.#plan;
    const keys = proof && psk !== undefined ? new DerivedKeys(psk.key) : undefined;
    let channel: SocketChannel;
    let material: Uint8Array = new Uint8Array();
    let identity: PeerIdentity | undefined;
    if (kind === 'plain') channel = await this.#connectPlain();
    else {
      const socket = await this.#connectTls(keys);
      channel = this.#channel as SocketChannel;
      material = keyingMaterial(socket);
      identity = identityOf(socket);
      await this.#authorise(identity);
    }
    await greet(channel, this.#purpose, keys, material);
    if (this.#failure !== undefined) throw this.#failure;
    const peer: Peer = { security, remote: formatAddress(this.#address), ...(identity && { identity }) };
    return new Link(channel, this.#purpose, peer, idleMs);
  }

  async #connectPlain(): Promise<SocketChannel> {
    const { where } = this.#endpoint;
    const options = { ...where, allowHalfOpen: true, noDelay: true, keepAlive: true };
    const channel = SocketChannel.ofNew((onread) =>
      connectSocket({ ...options, keepAliveInitialDelay: keepAliveMs, onread }),
    );
    this.#channel = channel;
    await happens(channel.socket, 'connect');
    return channel;
  }

  async #connectTls(keys: DerivedKeys | undefined): Promise<TLSSocket> {
    const { tls } = this.#options;
    const { where } = this.#endpoint;
    const name = tls?.serverName ?? ('host' in this.#address ? this.#address.host : '');
    const security =
      this.#plan.channel === 'tls' && tls !== undefined
        ? { ...certificateContext(tls), ...nameCheck(name) }
        : {
            ...pskContext(),
            checkServerIdentity: () => undefined,
            pskCallback: () => ({ psk: keys?.tls ?? Buffer.alloc(0), identity: keys?.identity ?? '' }),
          };
    const options: ConnectionOptions & { readonly allowHalfOpen: true } = {
      ...{ ...where, ...security, allowHalfOpen: true },
    };
    const socket = connectTls(options);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, keepAliveMs);
    this.#channel = SocketChannel.ofEvents(socket);
    await happens(socket, 'secureConnect');
    this.#isSecured = true;
    // A certificate would have been taken in place of the key.
    if (this.#plan.channel === 'tls-psk' && socket.getPeerX509Certificate() !== undefined) {
      throw new CheckpointError(
        'CHKPT_UNAUTHENTICATED',
        'the other side has a certificate, not the one-time key',
      );
    }
    return socket;
  }

  async #authorise(identity: PeerIdentity | undefined): Promise<void> {
    const { tls } = this.#options;
    if (tls?.authorise === undefined) return;
    if (!(await isAuthorised(tls.authorise, identity, this.#purpose)))
      throw new CheckpointError('CHKPT_UNAUTHENTICATED', 'the other side is not the one that was meant');
  }

  #describe(error: unknown): unknown {
    if (error instanceof TypeError || error instanceof RangeError) return error;
    const failure = this.#plan.channel === 'plain' ? linkError(error) : tlsError(error, this.#isSecured);
    const details = { store: formatAddress(this.#address) };
    return new CheckpointError(failure.code, failure.message, {
      details,
      cause: failure.cause ?? failure,
    });
  }
}

/** Resolves with the event; rejects when the socket fails first. */
function happens(socket: Socket, event: 'connect' | 'secureConnect'): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once(event, () => resolve());
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('closed')));
  });
}

/** The name that the certificate of the listener must have, and that it is asked for by; nobody is asked for by IP address. */
function nameCheck(name: string): Pick<ConnectionOptions, 'servername' | 'checkServerIdentity'> {
  return {
    servername: isIP(name) > 0 ? '' : name,
    checkServerIdentity: (_host, certificate) => checkServerIdentity(name, certificate),
  };
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortError(signal);
}
