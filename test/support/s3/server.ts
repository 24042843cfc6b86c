/**
 * A service of S3 on loopback that does what a test says at any request: loses the answer, refuses, cuts or alters bodies.
 *
 * It checks signatures and digests of bodies, and keeps a log. The same tests run against it and against Ceph, so that it can be trusted.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';
import { refusalOf, sha256 } from './signature.ts';
import { type Answer, type Asked, refusal, S3State } from './state.ts';

/** What happens to one request. */
export type Fault =
  /** Nothing is done; no answer. */
  | 'drop'
  /** It is done; no answer. */
  | 'lose'
  /** It is done, and an error is the answer. */
  | 'done-but-500'
  /** Nothing is done. */
  | { readonly refuse: number; readonly code: string }
  /**
   * The body of the answer ends after so many bytes, and the connection with it. `framing`: how its end could be known; with `close` nothing
   * but the end of the connection tells. Default: `length`.
   */
  | { readonly cutAfter: number; readonly framing?: Framing | undefined }
  /** The whole answer, which does not say how long it is. */
  | { readonly whole: Exclude<Framing, 'length'> }
  /** The answer is another one. */
  | { readonly answer: (right: Answer) => Answer | Promise<Answer> };

/** PEM texts. */
export interface Certificate {
  readonly key: string;
  readonly cert: string;
}

export type Framing = 'length' | 'chunked' | 'close';

export class S3TestServer {
  readonly state = new S3State();
  /** Method and key, in order, of requests that were signed right. */
  readonly log: string[] = [];
  /** Requests with a body that are under way: not answered yet. */
  bodiesUnderWay = 0;
  bodiesUnderWayMax = 0;
  /** Asked at each request; may change the state. */
  fault: ((asked: Asked) => Fault | undefined | Promise<Fault | undefined>) | undefined;
  /** What arrives of a body, in front of every check. */
  onTheWay: ((asked: Asked) => Buffer) | undefined;
  readonly #server: Server;

  readonly #isSecure: boolean;

  private constructor(tls: Certificate | undefined) {
    const serve = (request: IncomingMessage, response: ServerResponse): void => {
      this.#serve(request, response).catch(() => request.socket.destroy());
    };
    this.#isSecure = tls !== undefined;
    this.#server = tls === undefined ? createServer(serve) : createSecureServer(tls, serve);
  }

  /** Ends with the test, or with `close()`. With a certificate it is asked by `https:`. */
  static async start(
    closes: 'with-test' | 'by-hand' = 'with-test',
    tls?: Certificate | undefined,
  ): Promise<S3TestServer> {
    const server = new S3TestServer(tls);
    server.#server.listen(0, '127.0.0.1');
    await once(server.#server, 'listening');
    if (closes === 'with-test') onTestFinished(() => server.close());
    return server;
  }

  /** The same by another name of this machine. */
  endpointAt(host: string): string {
    return `http${this.#isSecure ? 's' : ''}://${host}:${(this.#server.address() as AddressInfo).port}`;
  }

  get endpoint(): string {
    return this.endpointAt('127.0.0.1');
  }

  url(key: string, more = ''): string {
    return `s3://bucket/${key}?endpoint=${this.endpoint}&region=us-east-1${more}`;
  }

  /** Everything that takes space. */
  remains(): string[] {
    return [
      ...this.state.objects.keys(),
      ...[...this.state.uploads.values()].map(({ key }) => `upload ${key}`),
    ].sort();
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const isBody = request.method === 'PUT';
    if (isBody) this.bodiesUnderWay += 1;
    this.bodiesUnderWayMax = Math.max(this.bodiesUnderWayMax, this.bodiesUnderWay);
    try {
      await this.#answer(request, response);
    } finally {
      if (isBody) this.bodiesUnderWay -= 1;
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const sent = await this.#read(request);
    const asked = this.onTheWay === undefined ? sent : { ...sent, body: this.onTheWay(sent) };
    const isBodyWhole =
      request.method !== 'PUT' || request.headers['content-length'] === `${asked.body.length}`;
    const code = isBodyWhole ? refusalOf(request, sha256(asked.body)) : 'MissingContentLength';
    if (code !== undefined) return send(response, asked, refusal(statusOf(code), code));
    this.log.push(
      `${asked.method} ${asked.key}${asked.query.size === 0 ? '' : ` ${[...asked.query.keys()]}`}`,
    );
    const fault = await this.fault?.(asked);
    if (fault === 'drop') return void request.socket.destroy();
    if (typeof fault === 'object' && 'refuse' in fault) {
      return send(response, asked, refusal(fault.refuse, fault.code));
    }
    const right = this.state.answer(asked);
    if (fault === 'lose') return void request.socket.destroy();
    if (fault === 'done-but-500') return send(response, asked, refusal(500, 'InternalError'));
    if (fault === undefined) return send(response, asked, right);
    if ('answer' in fault) return send(response, asked, await fault.answer(right));
    if ('whole' in fault) return framed(response, right, fault.whole, undefined);
    framed(response, right, fault.framing ?? 'length', fault.cutAfter);
  }

  async #read(request: IncomingMessage): Promise<Asked> {
    const url = new URL(request.url ?? '/', 'http://host');
    const [, ...words] = url.pathname.split('/');
    const inHost = /^(.+)\.localhost(:\d+)?$/.exec(request.headers.host ?? '')?.[1];
    const [bucket = '', ...path] = inHost === undefined ? words : [inHost, ...words];
    // The SDK names the operation; that is no query of S3.
    url.searchParams.delete('x-id');
    const pieces: Buffer[] = [];
    for await (const chunk of request) pieces.push(chunk as Buffer);
    return {
      method: request.method ?? '',
      bucket,
      key: decodeURIComponent(path.join('/')),
      query: url.searchParams,
      headers: request.headers as Record<string, string | undefined>,
      body: Buffer.concat(pieces),
    };
  }
}

function statusOf(code: string): number {
  if (code === 'MissingContentLength') return 411;
  return code === 'XAmzContentSHA256Mismatch' ? 400 : 403;
}

function send(
  response: ServerResponse,
  { method }: Asked,
  { status, headers = {}, body = '' }: Answer,
): void {
  response.writeHead(status, { 'content-length': `${body.length}`, ...headers });
  response.end(method === 'HEAD' ? undefined : body);
}

/** A body, perhaps cut, whose length is told in this way. */
function framed(
  response: ServerResponse,
  right: Answer,
  framing: Framing,
  cutAfter: number | undefined,
): void {
  const body = Buffer.from(right.body ?? '');
  const { 'content-length': _, ...headers } = right.headers ?? {};
  response.useChunkedEncodingByDefault = framing === 'chunked';
  response.writeHead(right.status, {
    ...headers,
    ...(framing === 'length' ? { 'content-length': `${body.length}` } : {}),
  });
  if (cutAfter === undefined) response.end(body);
  else response.write(body.subarray(0, cutAfter), () => response.socket?.destroySoon());
}
