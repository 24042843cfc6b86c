/**
 * `null:` throws everything away: what a save costs when its destination costs nothing. It cannot be read.
 */
import { CheckpointError } from '../errors/index.ts';
import { saveFailure } from './failure.ts';
import type { Store, StoreFactory, StoreReader, StoreWriter } from './store.ts';
import { urlError } from './url.ts';

export const nullStoreFactory: StoreFactory = (rest, url) => {
  if (rest !== '') throw urlError('null: takes nothing behind the colon', url);
  return new NullStore(url);
};

class NullStore implements Store {
  readonly url: string;

  constructor(url: string) {
    this.url = url;
  }

  async openWriter(): Promise<StoreWriter> {
    return nullWriter;
  }

  async openReader(): Promise<StoreReader> {
    throw new CheckpointError('CHKPT_UNSUPPORTED', 'the null store keeps nothing', {
      details: { store: this.url },
    });
  }
}

const nothing = async (): Promise<void> => undefined;
const nullWriter: StoreWriter = {
  write: nothing,
  writeAll: nothing,
  direct: () => ({
    descriptor: 'discard',
    position: 0,
    wrote: () => undefined,
    failure: (error) => saveFailure(error, 'cannot write', {}),
  }),
  commit: nothing,
  abort: nothing,
};
