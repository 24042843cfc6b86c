/**
 * `fd:N`, and `-`: the stream through a descriptor that is open already: a pipe to another program, a file of the shell, a socket that
 * somebody else has connected. It is read or written once, from where it stands to its end. `-` is standard output for a save and standard input
 * for a load.
 *
 * Whoever reads a pipe cannot be asked whether it has kept anything: `commit` means that the system took every byte.
 */
import { fstatSync } from 'node:fs';
import { isatty } from 'node:tty';
import { CheckpointError, type ErrorDetails, fromSystemError } from '../errors/index.ts';
import type { ByteChannel } from '../transport/byte-channel.ts';
import { channelOf } from './byte-channel.ts';
import { errnoOf } from './file-system.ts';
import type {
  Store,
  StoreFactory,
  StoreReader,
  StoreReadOptions,
  StoreWriteOptions,
  StoreWriter,
} from './store.ts';
import { urlError } from './url.ts';

const descriptorMax = 2 ** 31 - 1;

export const descriptorStoreFactory: StoreFactory = (rest, url) => {
  if (rest === '-') return new DescriptorStore(url, { input: 0, output: 1 });
  const descriptor = /^(0|[1-9]\d{0,9})$/.test(rest) ? Number(rest) : Number.NaN;
  if (!(descriptor <= descriptorMax)) throw urlError('fd: takes the number of an open descriptor, or -', url);
  return new DescriptorStore(url, { input: descriptor, output: descriptor });
};

interface Descriptors {
  readonly input: number;
  readonly output: number;
}

class DescriptorStore implements Store {
  readonly url: string;
  readonly #descriptors: Descriptors;
  /** The descriptor may be another file by now. */
  #isUsed = false;

  constructor(url: string, descriptors: Descriptors) {
    this.url = url;
    this.#descriptors = descriptors;
  }

  async openWriter({ signal }: StoreWriteOptions): Promise<StoreWriter> {
    const descriptor = this.#descriptors.output;
    return new DescriptorWriter(this.#open(descriptor, 'write'), signal, this.#details(descriptor));
  }

  async openReader({ signal }: StoreReadOptions = {}): Promise<StoreReader> {
    const descriptor = this.#descriptors.input;
    return new DescriptorReader(this.#open(descriptor, 'read'), signal, this.#details(descriptor));
  }

  #details(descriptor: number): ErrorDetails {
    const names = ['standard input', 'standard output', 'standard error'];
    return { store: this.url, path: names[descriptor] ?? `descriptor ${descriptor}` };
  }

  #open(descriptor: number, direction: 'read' | 'write'): ByteChannel {
    const details = this.#details(descriptor);
    if (this.#isUsed) {
      throw new CheckpointError('CHKPT_UNSUPPORTED', 'a stream goes by once; keep it in a file', { details });
    }
    try {
      if (isatty(descriptor)) {
        throw new CheckpointError('CHKPT_STORE_URL', 'this is a terminal: a checkpoint is not text', {
          details,
        });
      }
      if (fstatSync(descriptor).isDirectory()) {
        throw new CheckpointError('CHKPT_STORE_URL', 'this is a folder', { details });
      }
      const channel = channelOf(descriptor, direction);
      this.#isUsed = true;
      return channel;
    } catch (error) {
      throw fromSystemError(error, 'cannot use the descriptor', details);
    }
  }
}

/** Gives the channel up when the caller cancels: a write that nobody takes would wait for ever. */
class Cancellation {
  readonly #signal: AbortSignal | undefined;
  readonly #channel: ByteChannel;
  readonly #onAbort = (): void => this.#channel.destroy(new Error('cancelled'));

  constructor(signal: AbortSignal | undefined, channel: ByteChannel) {
    this.#signal = signal;
    this.#channel = channel;
    signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  dispose(): void {
    this.#signal?.removeEventListener('abort', this.#onAbort);
  }
}

class DescriptorWriter implements StoreWriter {
  readonly #channel: ByteChannel;
  readonly #cancellation: Cancellation;
  readonly #signal: AbortSignal | undefined;
  readonly #details: ErrorDetails;

  constructor(channel: ByteChannel, signal: AbortSignal | undefined, details: ErrorDetails) {
    this.#channel = channel;
    this.#signal = signal;
    this.#details = details;
    this.#cancellation = new Cancellation(signal, channel);
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#attempt('cannot write', () => this.#channel.write(bytes));
  }

  async commit(): Promise<void> {
    await this.#attempt('cannot write', () => this.#channel.end());
    this.#cancellation.dispose();
  }

  /** What was written cannot be taken back. Without END it is no checkpoint, and its reader says so. */
  async abort(): Promise<void> {
    this.#cancellation.dispose();
    this.#channel.destroy();
  }

  async #attempt(what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      throw failureOf(error, what, this.#signal, this.#details);
    }
  }
}

class DescriptorReader implements StoreReader {
  readonly byteLength = undefined;
  readonly #channel: ByteChannel;
  readonly #cancellation: Cancellation;
  readonly #signal: AbortSignal | undefined;
  readonly #details: ErrorDetails;

  constructor(channel: ByteChannel, signal: AbortSignal | undefined, details: ErrorDetails) {
    this.#channel = channel;
    this.#signal = signal;
    this.#details = details;
    this.#cancellation = new Cancellation(signal, channel);
  }

  async read(target: Uint8Array): Promise<number> {
    try {
      return await this.#channel.read(target);
    } catch (error) {
      throw failureOf(error, 'cannot read', this.#signal, this.#details);
    }
  }

  async close(): Promise<void> {
    this.#cancellation.dispose();
    this.#channel.destroy();
  }
}

function failureOf(
  error: unknown,
  what: string,
  signal: AbortSignal | undefined,
  details: ErrorDetails,
): CheckpointError {
  if (signal?.aborted === true) {
    return new CheckpointError('CHKPT_ABORTED', 'aborted', { details, cause: error });
  }
  if (errnoOf(error) === 'EPIPE') {
    return new CheckpointError('CHKPT_IO', `${what}: who reads it has gone`, { details, cause: error });
  }
  return fromSystemError(error, what, details);
}
