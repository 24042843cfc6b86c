/**
 * Makes the m5.cpt of a checkpoint: the sections that gem5 reads, then ours. Where a skeleton is given the machine's sections are those
 * of the skeleton (skeleton.ts); otherwise they are the least that gem5 reads memory from.
 */
import type { MemoryRegion } from '../../context/memory-frames.ts';
import type { ForeignContent } from '../foreign-format.ts';
import type { IniDocument } from './ini.ts';
import { addMemory, bareMachine, countStores, type StorePart, storesOfPc } from './machine.ts';
import { addOwnSections } from './own-sections.ts';

export interface Gem5Document {
  /** The stores of that memory. Throws `CHKPT_UNSUPPORTED` for memory that the machine cannot have. */
  cut(regions: readonly MemoryRegion[]): readonly StorePart[];
  /** Base name of the file of a memory store. `suffix`: what makes it another than that of an older checkpoint. */
  fileName(index: number, suffix: string): string;
  /** `files`: the base names of the stores, in the order of `cut`. */
  make(content: ForeignContent, files: readonly string[]): IniDocument;
  /** After `make`: what people are to be told, as a JSON document; `undefined`: nothing. */
  readonly report?: object | undefined;
}

/** A machine of which nothing but its name is known. */
export class BareDocument implements Gem5Document {
  readonly #system: string;

  constructor(system: string) {
    this.#system = system;
  }

  cut(regions: readonly MemoryRegion[]): readonly StorePart[] {
    return storesOfPc(regions);
  }

  fileName(index: number, suffix: string): string {
    return `${this.#system}.physmem.store${index}${suffix}.pmem`;
  }

  make(content: ForeignContent, files: readonly string[]): IniDocument {
    const document = bareMachine(this.#system, content.createdMs);
    const parts = this.cut(content.memory?.regions ?? []);
    const stores = parts.map(({ bytes }, index) => ({ file: files[index] as string, bytes }));
    if (stores.length > 0) addMemory(document, this.#system, stores);
    addOwnSections(document, content, countStores(parts));
    return document;
  }
}
