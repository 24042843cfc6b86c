/**
 * Interrupt controllers, timer and serial port of a PC: devices of a guest into sections of gem5. The clocks of the two machines have nothing
 * to do with each other: what depends on them stays as the skeleton has it, but that a timer which runs goes on with a whole period.
 */
import type { ErrorDetails } from '../../../errors/index.ts';
import type { CoreSource } from '../../x86/core-state.ts';
import type { X86Guest } from '../../x86/guest.ts';
import type { Fields } from '../../x86/taken-fields.ts';
import type { IniDocument, IniSection } from '../ini.ts';
import { joinList, SectionReader } from '../values.ts';
import { apicRegisterCount, apicRegisters } from './gem5-registers.ts';

const u32Max = 0xffff_ffffn;
/** A register of the local APIC. */
const initialCount = 0x38;

/** The local APIC of a core, in the section of its thread context. Nothing is pending afterwards but what its registers say. */
export function setApic(thread: IniSection, core: CoreSource, details: ErrorDetails): void {
  const { apic } = core;
  if (apic === undefined || thread.get('regs') === undefined) return;
  const values = new SectionReader(thread, details).unsignedList('regs', apicRegisterCount, u32Max);
  for (const [index, register] of apicRegisters) values[index] = BigInt(apic.register(register));
  thread.set('regs', joinList(values));
  for (const name of ['Smi', 'Nmi', 'ExtInt', 'Init', 'Startup', 'UnmaskableInt']) {
    if (thread.get(`pending${name}`) !== undefined) thread.set(`pending${name}`, 'false');
  }
  if (thread.get('pendingIPIs') !== undefined) thread.set('pendingIPIs', '0');
  if (thread.get('apicTimerEventScheduled') !== undefined) thread.set('apicTimerEventScheduled', 'false');
  // When the event is due depends on clocks that are not known here.
  if (apic.register(initialCount) !== 0) apic.timerLost();
  if (thread.get('startedUp') !== undefined) thread.set('startedUp', `${core.activity !== 'waiting'}`);
  thread.set('IRRV', `${highestBit(values.slice(41, 49))}`);
  thread.set('ISRV', `${highestBit(values.slice(9, 17))}`);
}

/** Sets what is there of both. Returns the sections that were set. */
export function setDevices(document: IniDocument, guest: X86Guest): IniSection[] {
  const set: IniSection[] = [];
  for (const { kind, names, apply } of devices) {
    const sections = [...document.sections].filter((section) =>
      kind.every((key) => section.get(key) !== undefined),
    );
    const order = new Intl.Collator('en', { numeric: true });
    sections.sort((left, right) => order.compare(left.name, right.name));
    for (const [index, name] of names.entries()) {
      const device = guest.device(name);
      const section = sections[index];
      if (device === undefined) continue;
      if (section === undefined) {
        device.refuse('the machine has no such device');
        continue;
      }
      apply(section, device);
      set.push(section);
    }
  }
  return set;
}

interface DeviceMapping {
  /** Keys by which a section is known. */
  readonly kind: readonly string[];
  /** Names of devices (`X86Guest.device`), in the order of the sections' names. */
  readonly names: readonly string[];
  apply(section: IniSection, fields: Fields): void;
}

const devices: readonly DeviceMapping[] = [
  {
    kind: ['IRR', 'ISR', 'IMR', 'vectorOffset'],
    names: ['pic0', 'pic1'],
    apply: (section, fields) => {
      copy(section, fields, { IRR: 'irr', ISR: 'isr', IMR: 'imr', vectorOffset: 'irq_base' });
      setFlag(section, 'autoEOI', () => fields.flag('auto_eoi'));
      setFlag(section, 'expectICW4', () => fields.flag('init4'));
      setFlag(section, 'readIRR', () => {
        const readsIsr = fields.flag('read_reg_select');
        return readsIsr === undefined ? undefined : !readsIsr;
      });
    },
  },
  {
    kind: ['redirTableArray', 'regSel', 'arbId'],
    names: ['ioapic'],
    apply: (section, fields) => {
      copy(section, fields, { regSel: 'ioregsel', id: 'id' });
      const table = fields.list('redirtbl', 24);
      if (table !== undefined) section.set('redirTableArray', joinList(table));
    },
  },
  {
    kind: ['pit.counter0.initial_count', 'pit.counter0.mode'],
    names: ['pit'],
    apply: (section, fields) => {
      for (let at = 0; at < 3; at += 1) {
        const own = `pit.counter${at}.`;
        const theirs = `channels[${at}].`;
        // A counter has 16 bits. What KVM and QEMU have as 65536 was written as 0.
        copy(section, fields, { [`${own}initial_count`]: `${theirs}count` }, 0x1_ffffn, 0xffffn);
        copy(section, fields, { [`${own}latched_count`]: `${theirs}latched_count` }, 0xffffn);
        copy(section, fields, { [`${own}mode`]: `${theirs}mode` });
        setFlag(section, `${own}latch_on`, () => fields.flag(`${theirs}count_latched`));
        const runs = setPeriod(section, own);
        const mode = `${theirs}mode`;
        if (!runs && fields.has(mode)) fields.partly(mode, 'in which gem5 lets no timer run');
      }
    },
  },
  {
    kind: ['IER', 'LCR', 'MCR', 'status'],
    names: ['serial0'],
    apply: (section, fields) => {
      copy(section, fields, { IER: 'interrupt_enable', LCR: 'line_control', MCR: 'modem_control' });
    },
  },
];

/** Ticks of gem5, picoseconds, for each count of the 8254: 10^12 / 1,193,180, as its model rounds. */
const ticksPerCount = 838_096n;

/** What gem5's model makes of a count when it is written: it fires at 1 where it starts anew. False: the mode is one that it ends of. */
function setPeriod(section: IniSection, counter: string): boolean {
  const count = BigInt(section.get(`${counter}initial_count`) ?? 0);
  const mode = Number(section.get(`${counter}mode`) ?? 0);
  const runs = [0, 2, 3].includes(mode);
  const period = !runs ? 0n : mode === 0 ? count : (count - 1n) & 0xffffn;
  if (section.get(`${counter}period`) !== undefined) section.set(`${counter}period`, `${period}`);
  const deadline = `${counter}event_tick_offset`;
  if (section.get(deadline) !== undefined) section.set(deadline, `${period * ticksPerCount}`);
  return runs;
}

/** Fields by the keys that take them, where there are both. `mask`: the bits that are taken, `placed`: those of them that are written. */
function copy(
  section: IniSection,
  fields: Fields,
  names: Readonly<Record<string, string>>,
  mask = 0xffn,
  placed = mask,
): void {
  for (const [key, field] of Object.entries(names)) {
    const value = section.get(key) === undefined ? undefined : fields.number(field, mask);
    if (value !== undefined) section.set(key, `${value & placed}`);
  }
}

/** `value` is asked where there is such a key. */
function setFlag(section: IniSection, key: string, value: () => boolean | undefined): void {
  const flag = section.get(key) === undefined ? undefined : value();
  if (flag !== undefined) section.set(key, `${flag}`);
}

/** The highest vector of a map of 256 bits; 0 when there is none. */
function highestBit(words: readonly bigint[]): number {
  for (let at = words.length - 1; at >= 0; at -= 1) {
    const word = words[at] ?? 0n;
    if (word !== 0n) return 32 * at + word.toString(2).length - 1;
  }
  return 0;
}
