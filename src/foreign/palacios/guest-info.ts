/**
 * The state of a processor as `guest_info<N>` of an original, made of that of a KVM machine. What an original saves and KVM has is in
 * it; the raw control blocks of the virtualisation hardware (`vmcb_data<N>`, `vmcs_data<N>`) nobody but an original has.
 */
import type { PalaciosContext, PalaciosRecord } from './record.ts';
import { guestInfoSchema } from './schema.ts';

/** A value of a core by its tag, as it is encoded; `undefined`: not there. */
export type CoreValue = (tag: string) => Uint8Array | undefined;

const running = 1;
const fxsave64 = 1;
const cpuModes = { real: 0, protected: 1, pae: 2, long: 3, long32: 4, long16: 5 } as const;

/** Tags of a KVM core by the tag of the original. */
const registers: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    'RIP RDI RSI RBP RSP RBX RDX RCX RAX'.split(' ').map((tag) => [tag, tag.toLowerCase()]),
  ),
  ...Object.fromEntries([8, 9, 10, 11, 12, 13, 14, 15].map((number) => [`R${number}`, `r${number}`])),
  ...Object.fromEntries('CR0 CR2 CR3 CR4 CR8 RFLAGS EFER'.split(' ').map((tag) => [tag, tag.toLowerCase()])),
  DR6: 'debug.dr6',
  DR7: 'debug.dr7',
  STAR: 'msr.star',
  LSTAR: 'msr.lstar',
  SFMASK: 'msr.syscall_mask',
  KERN_GS_BASE: 'msr.kernel_gs_base',
  // Nested paging: the plain registers are the guest's own.
  GUEST_CR0: 'cr0',
  GUEST_CR3: 'cr3',
  GUEST_EFER: 'efer',
};
const segments: Readonly<Record<string, string>> = {
  ...Object.fromEntries('CS DS ES FS GS SS TR'.split(' ').map((tag) => [tag, tag.toLowerCase()])),
  LDTR: 'ldt',
};
const tables: Readonly<Record<string, string>> = { GDTR: 'gdt', IDTR: 'idt' };

/** `guest_info<index>`; `undefined` when a value that it takes is not there: then the core is not one of KVM's. */
export function encodeGuestInfo(index: number, value: CoreValue): PalaciosContext | undefined {
  const records: PalaciosRecord[] = [];
  for (const [tag, bytes] of guestInfoSchema) {
    const data = fieldOf(tag, bytes, value);
    if (data === undefined) return undefined;
    records.push({ tag, data });
  }
  return { name: `guest_info${index}`, records };
}

function fieldOf(tag: string, bytes: number, value: CoreValue): Uint8Array | undefined {
  const segment = segments[tag] ?? tables[tag];
  if (segment !== undefined) return encodeSegment(segment, tag in tables, value);
  const debug = /^DR([0-3])$/.exec(tag)?.[1];
  if (debug !== undefined) return value('debug.db')?.slice(8 * Number(debug), 8 * Number(debug) + 8);
  if (tag === 'FP_STATE_BLOB') return encodeFxsave(value);
  const register = registers[tag];
  const number = register === undefined ? derived(tag, value) : numberIn(value(register));
  return number === undefined ? undefined : littleEndian(number, bytes);
}

/** What an original keeps beside the registers that say the same. */
function derived(tag: string, value: CoreValue): bigint | undefined {
  const number = (name: string): bigint | undefined => numberIn(value(name));
  const cr0 = number('cr0');
  switch (tag) {
    case 'run_state':
      return BigInt(running);
    case 'cpu_mode':
      return cpuMode(cr0, number('cr4'), number('efer'), number('cs.l'), number('cs.db'));
    case 'mem_mode':
      return cr0 === undefined ? undefined : (cr0 >> 31n) & 1n;
    case 'CPL':
      return number('ss.dpl');
    case 'APIC_TPR': {
      const priority = number('cr8');
      return priority === undefined ? undefined : (priority & 15n) << 4n;
    }
    default:
      return tag === 'FP_STATE_TYPE' ? BigInt(fxsave64) : undefined;
  }
}

function cpuMode(...values: readonly (bigint | undefined)[]): bigint | undefined {
  if (values.includes(undefined)) return undefined;
  const [cr0, cr4, efer, long, big] = values as readonly [bigint, bigint, bigint, bigint, bigint];
  const mode = (name: keyof typeof cpuModes): bigint => BigInt(cpuModes[name]);
  if ((cr0 & 1n) === 0n) return mode('real');
  if ((efer & (1n << 10n)) === 0n) return mode((cr4 & (1n << 5n)) === 0n ? 'protected' : 'pae');
  if (long === 1n) return mode('long');
  return mode(big === 1n ? 'long32' : 'long16');
}

/** u16 selector · u32 limit · u64 base · u16 attributes. Descriptor tables have a base and a limit only. */
function encodeSegment(name: string, isTable: boolean, value: CoreValue): Uint8Array | undefined {
  const fields = isTable ? ['limit', 'base'] : ['limit', 'base', 'selector', 'type', 's', 'dpl', 'present'];
  const more = isTable ? [] : ['avl', 'l', 'db', 'g', 'unusable'];
  const numbers = [...fields, ...more].map((field) => numberIn(value(`${name}.${field}`)));
  if (numbers.includes(undefined)) return undefined;
  const [limit = 0n, base = 0n, selector = 0n, type = 0n, s = 0n, dpl = 0n, present = 0n, ...flags] =
    numbers as bigint[];
  const upper = flags.reduce((bits, flag, index) => bits | ((flag & 1n) << BigInt(8 + index)), 0n);
  const attributes = (type & 15n) | ((s & 1n) << 4n) | ((dpl & 3n) << 5n) | ((present & 1n) << 7n) | upper;
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, Number(selector), true);
  view.setUint32(2, Number(limit), true);
  view.setBigUint64(6, base, true);
  view.setUint16(14, Number(attributes), true);
  return bytes;
}

/** The FXSAVE image: the first 512 bytes of an XSAVE area, or put together from the registers. */
function encodeFxsave(value: CoreValue): Uint8Array | undefined {
  const area = value('xsave.region');
  if (area !== undefined) return area.length < 512 ? undefined : area.slice(0, 512);
  const places: readonly (readonly [tag: string, offset: number, bytes: number])[] = [
    ['fcw', 0, 2],
    ['fsw', 2, 2],
    ['ftwx', 4, 1],
    ['last_opcode', 6, 2],
    ['last_ip', 8, 8],
    ['last_dp', 16, 8],
    ['mxcsr', 24, 4],
    ['fpr', 32, 128],
    ['xmm', 160, 256],
  ];
  const image = new Uint8Array(512);
  for (const [tag, offset, bytes] of places) {
    const data = value(`fpu.${tag}`);
    if (data?.length !== bytes) return undefined;
    image.set(data, offset);
  }
  return image;
}

/** The little-endian number in a value of 1 to 8 bytes. */
function numberIn(data: Uint8Array | undefined): bigint | undefined {
  if (data === undefined || data.length === 0 || data.length > 8) return undefined;
  return data.reduceRight((number, byte) => (number << 8n) | BigInt(byte), 0n);
}

function littleEndian(number: bigint, byteCount: number): Uint8Array {
  return Uint8Array.from({ length: byteCount }, (_, index) => Number((number >> BigInt(8 * index)) & 255n));
}
