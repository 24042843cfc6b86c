/** A destination that listens, and a guest that might come. */
import { join } from 'node:path';
import { expect } from 'vitest';
import { type ReceiveReport, type ReceiveVmOptions, receiveVm } from '../../src/index.ts';
import type { Pair } from './support.ts';

export interface Listening {
  readonly address: string;
  /** Never rejects unheard. */
  readonly receive: Promise<ReceiveReport>;
  /** Gives up, which it can as long as no guest has come. */
  stop(): Promise<void>;
}

/** `receiveVm` of the pair's destination, when it can be reached. */
export async function listening(pair: Pair, options: ReceiveVmOptions = {}): Promise<Listening> {
  let receive: Promise<ReceiveReport> | undefined;
  const end = new AbortController();
  const address = await new Promise<string>((resolve, reject) => {
    receive = receiveVm(pair.destination, `unix:${pair.folder}/socket`, {
      journal: join(pair.folder, 'destination'),
      lingerMs: 100,
      ...{ signal: end.signal, ...options },
      onListening: resolve,
    });
    receive.catch(reject);
  });
  const stop = async (): Promise<void> => {
    end.abort();
    await expect(receive).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
  };
  return { address, receive: receive as Promise<ReceiveReport>, stop };
}
