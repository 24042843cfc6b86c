/** A checkpoint that was read, but for the pages of its memory, whatever form it has. */
import { CheckpointError } from '../../errors/index.ts';
import type { GuestMemory } from '../../memory/index.ts';
import type { ForeignContent, ForeignMemoryOptions, ForeignReading } from '../foreign-format.ts';
import { memoryImageContext } from './schema.ts';
import type { TranslatedContent } from './translate.ts';

/** How a form fills memory, and lets go of what it has open. */
export interface ImageSource {
  fill(image: GuestMemory, options: ForeignMemoryOptions & { readonly store: string }): Promise<void>;
  close(): Promise<void>;
}

export class PalaciosReading implements ForeignReading {
  readonly uuid: string;
  readonly createdMs: number;
  readonly contexts: ForeignContent['contexts'];
  readonly memory: ForeignContent['memory'];
  readonly integrity: TranslatedContent['integrity'];
  readonly #memoryDigest: bigint | undefined;
  readonly #source: ImageSource;
  readonly #store: string;

  /** Owns `source`. */
  constructor(content: TranslatedContent, source: ImageSource, store: string) {
    this.uuid = content.uuid;
    this.createdMs = content.createdMs;
    this.contexts = content.contexts;
    this.memory = content.memory;
    this.integrity = content.integrity;
    this.#memoryDigest = content.memoryDigest;
    this.#source = source;
    this.#store = store;
  }

  async readMemory(image: GuestMemory, options: ForeignMemoryOptions): Promise<void> {
    await this.#source.fill(image, { ...options, store: this.#store });
    if (this.#memoryDigest === undefined) return;
    const digest = await digestOf(image, options);
    if (digest === this.#memoryDigest) return;
    throw new CheckpointError('CHKPT_DIGEST', 'memory has another digest than when it was saved', {
      details: { store: this.#store, context: memoryImageContext },
    });
  }

  async close(): Promise<void> {
    await this.#source.close();
  }
}

/** What `chkpt` beside an original keeps of memory. */
export async function digestOf(
  image: GuestMemory,
  { threads }: Pick<ForeignMemoryOptions, 'threads'>,
): Promise<bigint> {
  return await image.digest(threads === undefined ? {} : { threads });
}
