/**
 * Interrupt controllers, timer and serial port of a PC: contexts of KVM into sections of gem5. What depends on time stays as the skeleton
 * has it: the clocks of the two machines have nothing to do with each other.
 */
import type { ErrorDetails } from '../../../errors/index.ts';
import type { ForeignContext } from '../../foreign-format.ts';
import type { CoreState } from '../../x86/core-state.ts';
import { TagValues } from '../../x86/tag-values.ts';
import type { IniDocument, IniSection } from '../ini.ts';
import { joinList, SectionReader } from '../values.ts';
import { apicRegisterCount, apicRegisters } from './gem5-registers.ts';

const u32Max = 0xffff_ffffn;

/** The local APIC of a core, in the section of its thread context. Nothing is pending afterwards but what its registers say. */
export function setApic(thread: IniSection, core: CoreState, details: ErrorDetails): boolean {
  if (core.apic === undefined || thread.get('regs') === undefined) return false;
  const values = new SectionReader(thread, details).unsignedList('regs', apicRegisterCount, u32Max);
  for (const [index, register] of apicRegisters) values[index] = BigInt(core.apic[register] ?? 0);
  thread.set('regs', joinList(values));
  for (const name of ['Smi', 'Nmi', 'ExtInt', 'Init', 'Startup', 'UnmaskableInt']) {
    if (thread.get(`pending${name}`) !== undefined) thread.set(`pending${name}`, 'false');
  }
  if (thread.get('pendingIPIs') !== undefined) thread.set('pendingIPIs', '0');
  if (thread.get('apicTimerEventScheduled') !== undefined) thread.set('apicTimerEventScheduled', 'false');
  if (thread.get('startedUp') !== undefined && core.activity !== 'waiting') thread.set('startedUp', 'true');
  thread.set('IRRV', `${highestBit(values.slice(41, 49))}`);
  thread.set('ISRV', `${highestBit(values.slice(9, 17))}`);
  return true;
}

/** Sets what is there of both. Returns the sections that were set; `lose` hears of contexts that no section takes. */
export function setDevices(
  document: IniDocument,
  contexts: readonly ForeignContext[],
  lose: (what: string) => void,
): string[] {
  const set: string[] = [];
  for (const { kind, names, apply } of devices) {
    const sections = [...document.sections].filter((section) =>
      kind.every((key) => section.get(key) !== undefined),
    );
    const order = new Intl.Collator('en', { numeric: true });
    sections.sort((left, right) => order.compare(left.name, right.name));
    for (const [index, name] of names.entries()) {
      const context = contexts.find((one) => one.name === name);
      const section = sections[index];
      if (context === undefined) continue;
      if (section === undefined) {
        lose(`context ${name}: the machine has no such device`);
        continue;
      }
      apply(section, new TagValues(context));
      set.push(section.name);
    }
  }
  return set;
}

interface DeviceMapping {
  /** Keys by which a section is known. */
  readonly kind: readonly string[];
  /** Contexts, in the order of the sections' names. */
  readonly names: readonly string[];
  apply(section: IniSection, tags: TagValues): void;
}

const devices: readonly DeviceMapping[] = [
  {
    kind: ['IRR', 'ISR', 'IMR', 'vectorOffset'],
    names: ['pic0', 'pic1'],
    apply: (section, tags) => {
      copy(section, tags, { IRR: 'irr', ISR: 'isr', IMR: 'imr', vectorOffset: 'irq_base' });
      copyFlag(section, tags, { autoEOI: 'auto_eoi', expectICW4: 'init4' });
      if (tags.has('read_reg_select')) section.set('readIRR', `${tags.number('read_reg_select') === 0n}`);
    },
  },
  {
    kind: ['redirTableArray', 'regSel', 'arbId'],
    names: ['ioapic'],
    apply: (section, tags) => {
      copy(section, tags, { regSel: 'ioregsel', id: 'id' });
      const table = tags.bytes('redirtbl');
      if (table?.length !== 24 * 8) return;
      const view = new DataView(table.buffer, table.byteOffset, table.byteLength);
      section.set(
        'redirTableArray',
        joinList(Array.from({ length: 24 }, (_, at) => view.getBigUint64(8 * at, true))),
      );
    },
  },
  {
    kind: ['pit.counter0.initial_count', 'pit.counter0.mode'],
    names: ['pit'],
    apply: (section, tags) => {
      for (let at = 0; at < 3; at += 1) {
        const own = `pit.counter${at}.`;
        const theirs = `channels[${at}].`;
        copy(section, tags, {
          [`${own}initial_count`]: `${theirs}count`,
          [`${own}latched_count`]: `${theirs}latched_count`,
          [`${own}mode`]: `${theirs}mode`,
        });
        copyFlag(section, tags, { [`${own}latch_on`]: `${theirs}count_latched` });
      }
    },
  },
  {
    kind: ['IER', 'LCR', 'MCR', 'status'],
    names: ['serial0'],
    apply: (section, tags) => {
      copy(section, tags, { IER: 'interrupt_enable', LCR: 'line_control', MCR: 'modem_control' });
    },
  },
];

function copy(section: IniSection, tags: TagValues, names: Readonly<Record<string, string>>): void {
  for (const [key, tag] of Object.entries(names)) {
    const value = tags.number(tag);
    if (value !== undefined && section.get(key) !== undefined) section.set(key, `${value}`);
  }
}

function copyFlag(section: IniSection, tags: TagValues, names: Readonly<Record<string, string>>): void {
  for (const [key, tag] of Object.entries(names)) {
    const value = tags.number(tag);
    if (value !== undefined && section.get(key) !== undefined) section.set(key, `${value !== 0n}`);
  }
}

/** The highest vector of a map of 256 bits; 0 when there is none. */
function highestBit(words: readonly bigint[]): number {
  for (let at = words.length - 1; at >= 0; at -= 1) {
    const word = words[at] ?? 0n;
    if (word !== 0n) return 32 * at + word.toString(2).length - 1;
  }
  return 0;
}
