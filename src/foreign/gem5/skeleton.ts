/**
 * A checkpoint of the target machine, taken by gem5, with another guest put into it. Names, devices and memory ranges of a machine are
 * known to its gem5 script alone, so nobody can make them up: the skeleton has them, and only what the guest defines is replaced.
 */
import type { MemoryRegion } from '../../context/memory-frames.ts';
import { CheckpointError, type ErrorDetails } from '../../errors/index.ts';
import type { ForeignContent } from '../foreign-format.ts';
import { guestOfQemu } from '../qemu/guest.ts';
import { guestOfKvm, type X86Guest } from '../x86/guest.ts';
import type { Gem5Document } from './document.ts';
import { type IniDocument, type IniSection, parseIni } from './ini.ts';
import {
  basesOf,
  countStores,
  cutRegions,
  type MemoryStore,
  memorySection,
  readStores,
  type StorePart,
  storeSection,
} from './machine.ts';
import { addOwnSections, isOwnSection } from './own-sections.ts';
import { coresOf, setCore } from './x86/gem5-core.ts';
import { setApic, setDevices } from './x86/gem5-devices.ts';
import { virtual8086 } from './x86/gem5-registers.ts';

/** What became of the guest and of the skeleton. */
export interface SkeletonReport {
  /** Sections in which something of the guest stands now. */
  readonly set: readonly string[];
  /** Sections of the skeleton that are as they were; and of those in `set` the keys, as `section/key`, and numbers of `regVal`. */
  readonly kept: readonly string[];
  /** State of the skeleton's guest that was taken out. */
  readonly cleared: readonly string[];
  /**
   * State of the guest that gem5 has no place for: `context NAME` for all of one, `NAME/TAG` for a tag, `NAME/TAG[RANGE]` for elements of it,
   * `NAME/TAG: WORDS` for what else is lost of one that has a place. docs/gem5.md has the rules.
   */
  readonly lost: readonly string[];
}

export class SkeletonDocument implements Gem5Document {
  readonly #text: Uint8Array;
  readonly #stores: readonly MemoryStore[];
  readonly #bases: readonly bigint[];
  readonly #memoryName: string;
  readonly #system: string | undefined;
  readonly #details: ErrorDetails;
  #report: SkeletonReport | undefined;

  /** `text`: the m5.cpt of the skeleton. Throws `CHKPT_FORMAT`, `CHKPT_UNSUPPORTED`. */
  constructor(
    text: Uint8Array,
    options: { system?: string | undefined; bases?: readonly bigint[] | undefined },
    details: ErrorDetails,
  ) {
    const document = parseIni(text, details);
    const memory = memorySection(document, options.system, details);
    if (memory === undefined) {
      throw new CheckpointError('CHKPT_FORMAT', 'the skeleton has no memory', { details });
    }
    this.#text = text;
    this.#system = options.system;
    this.#details = details;
    this.#memoryName = memory.name;
    this.#stores = readStores(document, memory, details);
    this.#bases = options.bases ?? basesOf(this.#stores, details);
  }

  /** After `make`. */
  get report(): SkeletonReport | undefined {
    return this.#report;
  }

  /** As it is, or in one piece from 0 on, as an image of a PC's memory has it. */
  cut(regions: readonly MemoryRegion[]): readonly StorePart[] {
    const wanted = this.#stores.map(({ bytes }, index) => `${bytes} bytes at ${this.#bases[index]}`);
    const found = regions.map(({ base, bytes }) => `${bytes} bytes at ${base}`);
    const sizes = this.#stores.map(({ bytes }) => bytes);
    const total = sizes.reduce((sum, bytes) => sum + bytes, 0n);
    if (wanted.join() === found.join())
      return cutRegions(
        regions,
        sizes.map((bytes) => [bytes]),
      );
    if (found.join() === `${total} bytes at 0`) return cutRegions(regions, [sizes]);
    throw new CheckpointError(
      'CHKPT_UNSUPPORTED',
      'the memory of the machine in the skeleton is another one',
      {
        details: { ...this.#details, expected: wanted.join(', '), actual: found.join(', ') },
      },
    );
  }

  fileName(index: number, suffix: string): string {
    return `${this.#memoryName}.store${index}${suffix}.pmem`;
  }

  make(content: ForeignContent, files: readonly string[]): IniDocument {
    const document = parseIni(this.#text, this.#details);
    for (const { name } of [...document.sections]) if (isOwnSection(name)) document.remove(name);
    if (content.memory === undefined) {
      throw new CheckpointError('CHKPT_UNSUPPORTED', 'a skeleton is filled with a guest that has memory', {
        details: this.#details,
      });
    }
    const set = new Set<IniSection>();
    this.#setMemory(document, files, set);
    const cleared = emptyTlbs(document);
    const guest = guestOfQemu(content.contexts) ?? guestOfKvm(content.contexts);
    const registers = this.#setCores(document, guest, set);
    for (const section of setDevices(document, guest)) set.add(section);
    const noCores = 'cores: no context holds the state of an x86 core in a form that is known';
    const kept = [...document.sections]
      .filter(({ name }) => !cleared.includes(name))
      .flatMap((section) => (set.has(section) ? keptKeys(section) : [section.name]));
    this.#report = {
      set: Array.from(set, ({ name }) => name),
      kept: [...kept, ...registers],
      cleared,
      lost: [...(guest.cores.length === 0 ? [noCores] : []), ...guest.lost],
    };
    addOwnSections(document, content, countStores(this.cut(content.memory.regions)));
    return document;
  }

  #setMemory(document: IniDocument, files: readonly string[], set: Set<IniSection>): void {
    for (let at = 0; at < files.length; at += 1) {
      const section = document.section(storeSection(this.#memoryName, at));
      const id = Number(section?.get('store_id') ?? at);
      section?.set('filename', files[id] as string);
      if (section !== undefined) set.add(section);
    }
    const memory = document.section(this.#memoryName);
    // Locks of the skeleton's guest.
    for (const key of ['lal_addr', 'lal_cid']) if (memory?.get(key) !== undefined) memory.set(key, '');
    if (memory !== undefined) set.add(memory);
  }

  /** Returns what of the cores' registers stays as it was. */
  #setCores(document: IniDocument, { cores }: X86Guest, set: Set<IniSection>): string[] {
    const places = coresOf(document, this.#system);
    if (cores.length > places.length) {
      const what = `the guest has ${cores.length} x86 cores, the machine in the skeleton ${places.length}`;
      throw new CheckpointError('CHKPT_UNSUPPORTED', what, { details: this.#details });
    }
    return cores.flatMap((core, index) => {
      const place = places[index];
      if (place === undefined) return [];
      if ((core.rflags & virtual8086) !== 0n) {
        const what = 'gem5 has no virtual-8086 mode, which a core of the guest is in';
        throw new CheckpointError('CHKPT_UNSUPPORTED', what, { details: this.#details });
      }
      const kept = setCore(place, core, this.#details);
      setApic(place.thread, core, this.#details);
      set.add(place.thread).add(place.isa);
      return kept.map((name) => `${place.isa.name}/${name}`);
    });
  }
}

/** What of a section stays as the skeleton has it. */
function keptKeys(section: IniSection): string[] {
  return section.kept.map((key) => `${section.name}/${key}`);
}

/** Translations of the skeleton's guest would be used for the other one. Returns what was emptied or removed. */
function emptyTlbs(document: IniDocument): string[] {
  const cleared: string[] = [];
  const tlbs = new Set<string>();
  for (const section of document.sections) {
    if (section.get('_size') === undefined || section.get('lruSeq') === undefined) continue;
    section.set('_size', '0');
    tlbs.add(section.name);
    cleared.push(section.name);
  }
  for (const { name } of [...document.sections]) {
    const tlb = /^(.+)\.Entry[0-9]+$/.exec(name)?.[1];
    if (tlb === undefined || !tlbs.has(tlb)) continue;
    document.remove(name);
    cleared.push(name);
  }
  return cleared;
}
