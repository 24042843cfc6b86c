/**
 * A checkpoint of the target machine, taken by gem5, with another guest put into it. Names, devices and memory ranges of a machine are
 * known to its gem5 script alone, so nobody can make them up: the skeleton has them, and only what the guest defines is replaced.
 */
import type { MemoryRegion } from '../../context/memory-frames.ts';
import { CheckpointError, type ErrorDetails } from '../../errors/index.ts';
import type { ForeignContent, ForeignContext } from '../foreign-format.ts';
import { machineOfQemu, type QemuMachine, qemuContext } from '../qemu/machine-contexts.ts';
import type { CoreState } from '../x86/core-state.ts';
import { coreOfKvm } from '../x86/kvm-core.ts';
import type { Gem5Document } from './document.ts';
import { type IniDocument, parseIni } from './ini.ts';
import { basesOf, type MemoryStore, memorySection, readStores, storeSection } from './machine.ts';
import { addOwnSections, isOwnSection } from './own-sections.ts';
import { coresOf, setCore } from './x86/gem5-core.ts';
import { setApic, setDevices } from './x86/gem5-devices.ts';
import { virtual8086 } from './x86/gem5-registers.ts';

/** What became of the guest and of the skeleton. */
export interface SkeletonReport {
  /** Sections in which something of the guest stands now. */
  readonly set: readonly string[];
  /** Sections of the skeleton that are as they were. */
  readonly kept: readonly string[];
  /** State of the skeleton's guest that was taken out. */
  readonly cleared: readonly string[];
  /** State of the guest that gem5 has no place for, in words. */
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

  checkMemory(regions: readonly MemoryRegion[]): void {
    const wanted = this.#stores.map(({ bytes }, index) => `${bytes} bytes at ${this.#bases[index]}`);
    const found = regions.map(({ base, bytes }) => `${bytes} bytes at ${base}`);
    if (wanted.join() === found.join()) return;
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
    const set = new Set<string>();
    const lost: string[] = [];
    this.#setMemory(document, files, set);
    const cleared = emptyTlbs(document);
    const qemu = machineOfQemu(content.contexts);
    const contexts = qemu?.contexts ?? content.contexts;
    this.#setCores(document, contexts, set, lost);
    for (const name of setDevices(document, contexts, (what) => lost.push(what))) set.add(name);
    lost.push(...leftOver(content.contexts, qemu));
    const kept = [...document.sections]
      .map(({ name }) => name)
      .filter((name) => !set.has(name) && !cleared.includes(name));
    this.#report = { set: [...set], kept, cleared, lost };
    addOwnSections(document, content);
    return document;
  }

  #setMemory(document: IniDocument, files: readonly string[], set: Set<string>): void {
    for (let at = 0; at < files.length; at += 1) {
      const section = document.section(storeSection(this.#memoryName, at));
      const id = Number(section?.get('store_id') ?? at);
      section?.set('filename', files[id] as string);
      if (section !== undefined) set.add(section.name);
    }
    const memory = document.section(this.#memoryName);
    // Locks of the skeleton's guest.
    for (const key of ['lal_addr', 'lal_cid']) if (memory?.get(key) !== undefined) memory.set(key, '');
    set.add(this.#memoryName);
  }

  #setCores(
    document: IniDocument,
    contexts: readonly ForeignContext[],
    set: Set<string>,
    lost: string[],
  ): void {
    const cores = coresOfContexts(contexts);
    const places = coresOf(document, this.#system);
    if (cores.length > places.length) {
      const what = `the guest has ${cores.length} x86 cores, the machine in the skeleton ${places.length}`;
      throw new CheckpointError('CHKPT_UNSUPPORTED', what, { details: this.#details });
    }
    for (const [index, core] of cores.entries()) {
      const place = places[index];
      if (place === undefined) continue;
      if ((core.rflags & virtual8086) !== 0n) {
        throw new CheckpointError(
          'CHKPT_UNSUPPORTED',
          'gem5 has no virtual-8086 mode, which a core of the guest is in',
          {
            details: this.#details,
          },
        );
      }
      const lose = (what: string): void => void lost.push(`core ${index}: ${what}`);
      setCore(place, core, this.#details, lose);
      if (!setApic(place.thread, core, this.#details)) lose('local APIC');
      lose('time stamp counter, and the deadline of the APIC timer');
      set.add(place.thread.name).add(place.isa.name);
    }
    if (cores.length === 0)
      lost.push('cores: no context holds the state of an x86 core in a form that is known');
  }
}

/** The cores of a guest, as far as contexts hold them one behind the other. */
export function coresOfContexts(contexts: readonly ForeignContext[]): CoreState[] {
  const cores: CoreState[] = [];
  for (;;) {
    const core = coreOfKvm(contexts, cores.length);
    if (core === undefined) return cores;
    cores.push(core);
  }
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

const mapped = /^(?:header|devices|memory|core[0-9]+(?:\.arch)?|pic[01]|ioapic|pit|serial0)$/;

/** Contexts that no mapping knows. They are in sections of their own, for chkpt. */
function leftOver(contexts: readonly ForeignContext[], qemu: QemuMachine | undefined): string[] {
  const isMapped = (name: string): boolean =>
    mapped.test(name) || (qemu !== undefined && name === qemuContext);
  const left = contexts.filter(({ name }) => !isMapped(name)).map(({ name }) => `context ${name}`);
  return [...left, ...(qemu?.others ?? []).map((name) => `device ${name} of QEMU`)];
}
