/** Two machines and a link between them, in one process. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SyntheticVm, type SyntheticVmOptions } from '../../src/adapters/synthetic/index.ts';
import {
  type ReceiveReport,
  type ReceiveVmOptions,
  receiveVm,
  type SendReport,
  type SendVmOptions,
  sendVm,
} from '../../src/index.ts';

export interface Pair extends AsyncDisposable {
  readonly source: SyntheticVm;
  readonly destination: SyntheticVm;
  /** Own folder; sockets and journals. */
  readonly folder: string;
}

/** A machine that has stamped pages and runs, and one of the same shape that waits. */
export async function makePair(options: SyntheticVmOptions = {}): Promise<Pair> {
  const folder = await mkdtemp(join(tmpdir(), 'chkpt-migration-'));
  const defaults = { id: 'guest', memoryBytes: 64 * 2 ** 20, pagesPerSecond: 1000 };
  const source = await SyntheticVm.create({ ...defaults, ...options });
  const destination = await SyntheticVm.create({
    ...defaults,
    ...options,
    guestLike: false,
  });
  return {
    source,
    destination,
    folder,
    async [Symbol.asyncDispose]() {
      await source.close();
      await destination.close();
      // An end that lingers may still have its journal in hand.
      await rm(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** Both ends of one migration. `send` and `receive` never reject unheard. */
export interface Migration {
  readonly send: Promise<SendReport>;
  readonly receive: Promise<ReceiveReport>;
  readonly address: string;
}

export async function migrate(
  pair: Pair,
  options: {
    readonly send?: SendVmOptions;
    readonly receive?: ReceiveVmOptions;
    /** Listens there; default a UNIX socket of the pair. */
    readonly url?: string;
    /** Stands between the two: gives the address that the source connects to. */
    readonly through?: (address: string) => Promise<string>;
  } = {},
): Promise<Migration> {
  const { folder, source, destination } = pair;
  let receive: Promise<ReceiveReport> | undefined;
  const address = await new Promise<string>((resolve, reject) => {
    receive = receiveVm(destination, options.url ?? `unix:${folder}/socket`, {
      journal: join(folder, 'destination'),
      lingerMs: 2000,
      ...options.receive,
      onListening: resolve,
    });
    receive.catch(reject);
  });
  const target = (await options.through?.(address)) ?? address;
  const send = sendVm(source, target, { journal: join(folder, 'source'), ...options.send });
  send.catch(() => undefined);
  return { send, receive: receive as Promise<ReceiveReport>, address: target };
}

/** Digests of the guest when it stopped on the source and before it runs on the destination: I5. */
export function watch({ source, destination }: Pair): { stopped?: string; arrived?: string } {
  const digests: { stopped?: string; arrived?: string } = {};
  const pause = source.pause.bind(source);
  const resume = destination.resume.bind(destination);
  source.pause = async () => {
    await pause();
    digests.stopped = await source.digest();
  };
  destination.resume = async () => {
    digests.arrived = await destination.digest();
    await resume();
  };
  return digests;
}
