/**
 * An original, written anew from the description of its formats and with nothing of src/foreign: how it writes and reads records, and a
 * whole checkpoint to work with. It is the oracle of the tests: it is as lenient and as strict as the original is.
 */

export type Blob = readonly [tag: string, data: Uint8Array];
export type Group = readonly [name: string, blobs: readonly Blob[]];

const latin = (text: string): Buffer => Buffer.from(text, 'latin1');

export function u32(value: number): Uint8Array {
  return Uint8Array.of(value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24);
}

export function u64(value: number | bigint): Uint8Array {
  const hex = BigInt.asUintN(64, BigInt(value)).toString(16).padStart(16, '0');
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16)).reverse();
}

/** A record as the keyed streams write it. */
export function record([tag, data]: Blob): Buffer {
  return Buffer.concat([
    Uint8Array.of(0x23, 0x01, 0xcd, 0xab),
    u64(tag.length),
    latin(tag),
    u64(data.length),
    data,
  ]);
}

export const fileOf = (blobs: readonly Blob[]): Buffer => Buffer.concat(blobs.map(record));
export const plainOf = (blobs: readonly Blob[]): Buffer => Buffer.concat(blobs.map(([, data]) => data));
export const textOf = ([name, blobs]: Group): Buffer =>
  latin(`[${name}]\n${blobs.map(([tag, data]) => `${tag}=${Buffer.from(data).toString('hex')}\n`).join('')}`);

export function key(name: string): Buffer {
  return Buffer.concat([Uint8Array.of(name.length & 255, 0x80 | (name.length >> 8)), latin(name)]);
}

/** As the PCI bus of an original: its buffer holds the name of the last BAR by then. */
const closeOf = ([name, blobs]: Group): string => (blobs.some(([tag]) => tag === 'BAR-5') ? 'BAR-5' : name);

/** A context on a connection; `close`: what stands in the caller's buffer by then. */
export const wireOf = ([name, blobs]: Group, close = closeOf([name, blobs])): Buffer =>
  Buffer.concat([key(name), fileOf(blobs), key(close)]);

/** Takes records apart, one byte after the other. */
export function recordsIn(file: Uint8Array): Blob[] {
  const bytes = new Uint8Array(file);
  const found: Blob[] = [];
  const length = (at: number): number => {
    let value = 0;
    for (let index = 7; index >= 0; index -= 1) value = value * 256 + (bytes[at + index] as number);
    return value;
  };
  for (let at = 0; at < bytes.length; ) {
    if (latin('#\x01\xcd\xab').compare(bytes, at, at + 4) !== 0) throw new Error(`no boundary at ${at}`);
    const tagBytes = length(at + 4);
    const tag = Buffer.from(bytes.slice(at + 12, at + 12 + tagBytes)).toString('latin1');
    const dataBytes = length(at + 12 + tagBytes);
    const start = at + 20 + tagBytes;
    if (start + dataBytes > bytes.length) throw new Error('too short');
    found.push([tag, bytes.slice(start, start + dataBytes)]);
    at = start + dataBytes;
  }
  return found;
}

/** Bytes that differ from place to place. */
export function pattern(seed: number, count: number): Uint8Array {
  let state = (seed * 2654435761 + 1) >>> 0;
  return Uint8Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 24;
  });
}

export interface SampleOptions {
  readonly vendor?: 'SVM' | 'VMX';
  readonly cores?: number;
  readonly blockBytes?: number;
  readonly blocks?: number;
  readonly devices?: readonly (readonly [id: string, blobs: readonly Blob[]])[];
  /** PCI, IDE: saved, and not in the table. */
  readonly extended?: readonly Group[];
  readonly skip?: readonly ('memory' | 'devices' | 'cores' | 'archdep')[];
}

/** Page `index` of the memory of a sample: some are zero. */
export function samplePage(index: number): Uint8Array {
  return index % 3 === 1 ? new Uint8Array(4096) : pattern(index, 4096);
}

export function memoryGroup(blockBytes: number, blocks: number): Group {
  const pages = blockBytes / 4096;
  return [
    'memory_img',
    [
      ['region_size', u64(blockBytes)],
      ['num_regions', u32(blocks)],
      ...Array.from(
        { length: blocks },
        (_, block): Blob => [
          `memory_img${block}`,
          Buffer.concat(Array.from({ length: pages }, (_page, page) => samplePage(block * pages + page))),
        ],
      ),
    ],
  ];
}

/** All contexts of a checkpoint in the order of the stream. */
export function sampleOriginal(options: SampleOptions = {}): Group[] {
  const { vendor = 'SVM', cores = 2, blockBytes = 16_384, blocks = 3, skip = [] } = options;
  const { devices = [], extended = [] } = options;
  const names = Buffer.alloc(32 * devices.length);
  for (const [index, [id]] of devices.entries()) names.write(id, index * 32, 'latin1');
  const table: Group = [
    'devices',
    [
      ['num_devs', u32(devices.length)],
      ['names', names],
    ],
  ];
  const all: Group[] = [];
  if (!skip.includes('memory')) all.push(memoryGroup(blockBytes, blocks));
  if (!skip.includes('devices')) all.push(table, ...devices, ...extended);
  all.push(['header', [['header', latin(`v3vee palacios checkpoint version: x.x, ${vendor} x.x`)]]]);
  for (let core = 0; core < cores && !skip.includes('cores'); core += 1) {
    all.push([`guest_info${core}`, guestInfo(core)]);
    if (!skip.includes('archdep')) all.push(archContext(vendor, core));
  }
  return all;
}

/** 54 records. */
export function guestInfo(core: number): Blob[] {
  const sizes: [string, number][] = [
    ['run_state cpu_mode mem_mode CPL', 4],
    ['RIP', 8],
    ['RDI RSI RBP RSP RBX RDX RCX RAX R8 R9 R10 R11 R12 R13 R14 R15', 8],
    ['CR0 CR2 CR3 CR4 CR8 APIC_TPR RFLAGS EFER', 8],
    ['DR0 DR1 DR2 DR3 DR6 DR7', 8],
    ['CS DS ES FS GS SS LDTR GDTR IDTR TR', 16],
    ['STAR LSTAR SFMASK KERN_GS_BASE', 8],
    ['GUEST_CR3 GUEST_CR0 GUEST_EFER', 8],
    ['FP_STATE_TYPE', 4],
    ['FP_STATE_BLOB', 512],
  ];
  return sizes.flatMap(([tags, bytes]) =>
    tags.split(' ').map((tag, index): Blob => [tag, pattern(core * 1000 + tags.length * 50 + index, bytes)]),
  );
}

function archContext(vendor: 'SVM' | 'VMX', core: number): Group {
  if (vendor === 'VMX') return [`vmcs_data${core}`, [['vmcs_data', pattern(900 + core, 4096)]]];
  const tags = 'STAR CSTAR LSTAR SFMASK KERNELGSBASE SYSENTER_CS SYSENTER_ESP SYSENTER_EIP'.split(' ');
  return [
    `vmcb_data${core}`,
    [
      ['CPL', pattern(800 + core, 4)],
      ...tags.map((tag, index): Blob => [tag, pattern(810 + index, 8)]),
      ['VMCB_DATA', pattern(880 + core, 4096)],
    ],
  ];
}
