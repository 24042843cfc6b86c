/** A TCP proxy that counts what goes through and cuts the connection at a byte, in one of four ways. */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** `deaf`: everything gets there, and nothing comes back any more; then both ends are hung up on. */
export type Cut = 'reset' | 'close' | 'half-close' | 'deaf';

export interface ProxyOptions {
  /** Where the listener really is. */
  readonly target: { readonly port: number; readonly host: string };
  /** After so many bytes from the connecting end. */
  readonly cutAt?: number | undefined;
  readonly cut?: Cut | undefined;
}

export class CuttingProxy {
  /** Everything that came from the connecting end. */
  readonly sent: Buffer[] = [];
  readonly #server = createServer({ allowHalfOpen: true });
  readonly #sockets = new Set<Socket>();
  readonly #options: ProxyOptions;

  private constructor(options: ProxyOptions) {
    this.#options = options;
    this.#server.on('connection', (near) => this.#join(near));
  }

  static async open(options: ProxyOptions): Promise<CuttingProxy> {
    const proxy = new CuttingProxy(options);
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get address(): string {
    return `tcp://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #join(near: Socket): void {
    const { target, cutAt = Number.POSITIVE_INFINITY, cut = 'reset' } = this.#options;
    const far = connect({ ...target, allowHalfOpen: true });
    for (const socket of [near, far]) {
      this.#sockets.add(socket);
      socket.on('error', () => undefined);
    }
    let passed = 0;
    near.on('data', (bytes) => {
      const rest = bytes.subarray(0, cutAt - passed);
      this.sent.push(rest);
      passed += rest.length;
      if (passed >= cutAt && cut === 'deaf') far.removeAllListeners('data');
      far.write(rest, () => {
        if (passed >= cutAt) this.#cut(near, far, cut);
      });
    });
    near.on('end', () => far.end());
    far.on('data', (bytes) => near.write(bytes));
    far.on('end', () => near.end());
    far.on('close', () => near.destroy());
  }

  #cut(near: Socket, far: Socket, cut: Cut): void {
    near.pause();
    if (cut === 'half-close') far.end();
    else if (cut === 'close') for (const socket of [near, far]) socket.destroy();
    else if (cut === 'reset') for (const socket of [near, far]) socket.resetAndDestroy();
    else far.resume();
  }
}
