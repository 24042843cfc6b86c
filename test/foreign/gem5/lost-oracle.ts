/**
 * Whether a report tells the truth, asked from outside: a bit of the guest that is changed changes what gem5 reads, or it is among what was
 * lost. Knows nothing of the mapping, nor of how the report comes about.
 */
import { expect } from 'vitest';
import type { ForeignContext } from '../../../src/foreign/foreign-format.ts';
import { serializeIni } from '../../../src/foreign/gem5/ini.ts';
import { isOwnSection } from '../../../src/foreign/gem5/own-sections.ts';
import { SkeletonDocument, type SkeletonReport } from '../../../src/foreign/gem5/skeleton.ts';
import { parseVmState } from '../../../src/foreign/qemu/vm-state.ts';
import { elementBytes } from '../../../src/format/value.ts';
import { skeletonText } from './skeleton-text.ts';

const storeBytes = 1 << 16;

export interface Filled {
  /** What gem5 reads. */
  readonly text: string;
  readonly report: SkeletonReport;
}

/** What a machine with so many cores is with this guest in it. `without`: lines that its text does not have. */
export function fill(contexts: readonly ForeignContext[], cores = 1, without = /^$/): Filled {
  const lines = skeletonText({ cores, storeBytes: [storeBytes] }).split('\n');
  const skeleton = Buffer.from(lines.filter((line) => line === '' || !without.test(line)).join('\n'));
  const document = new SkeletonDocument(skeleton, {}, {});
  const memory = { name: 'memory', at: 0, regions: [{ base: 0n, bytes: BigInt(storeBytes) }] };
  const uuid = '0f0e0d0c-0b0a-4908-8706-050403020100';
  const made = document.make({ uuid, createdMs: 0, contexts, memory }, ['a.pmem']);
  for (const { name } of [...made.sections]) if (isOwnSection(name)) made.remove(name);
  return {
    text: Buffer.from(serializeIni(made)).toString('latin1'),
    report: document.report as SkeletonReport,
  };
}

/** A value of the guest: bytes that lie in a tag. */
export interface GuestField {
  readonly name: string;
  readonly data: Uint8Array;
  readonly elementBytes: number;
}

/** Every tag but those that tell of the checkpoint. */
export function fieldsOfContexts(contexts: readonly ForeignContext[]): GuestField[] {
  return contexts
    .filter(({ name }) => !['header', 'devices'].includes(name))
    .flatMap(({ name, tags }) =>
      tags.map(({ name: tag, type, data }) => ({
        name: `${name}/${tag}`,
        data,
        elementBytes: elementBytes(type),
      })),
    );
}

/** Every field of these devices in the state of a QEMU guest. */
export function fieldsOfQemu(contexts: readonly ForeignContext[], devices: readonly string[]): GuestField[] {
  const tags = contexts.find(({ name }) => name === 'qemu')?.tags ?? [];
  const state = tags.find(({ name }) => name === 'state')?.data as Uint8Array;
  const counts = new Map<string, number>();
  return (parseVmState(state, new Set(devices))?.devices ?? []).flatMap((device) => {
    const index = counts.get(device.name) ?? 0;
    counts.set(device.name, index + 1);
    return [...device.names].map((name) => ({
      name: `qemu/state.${device.name}[${index}].${name}`,
      data: device.bytes(name) as Uint8Array,
      elementBytes: 1,
    }));
  });
}

interface Lost {
  /** Names of fields. */
  readonly whole: ReadonlySet<string>;
  /** Elements, by field. */
  readonly elements: ReadonlyMap<string, ReadonlySet<number>>;
  /** Fields of which something is told in words. */
  readonly partly: ReadonlySet<string>;
}

/** What the lines say of the fields. A line that says nothing of them is a failure, unless it is one of `others`. */
function readLost(lines: readonly string[], fields: readonly GuestField[], others: RegExp): Lost {
  const names = new Set(fields.map(({ name }) => name));
  const whole = new Set<string>();
  const partly = new Set<string>();
  const elements = new Map<string, Set<number>>();
  for (const line of lines) {
    const [head = '', words] = line.split(': ');
    const context = /^context (.+)$/.exec(head)?.[1];
    const [, device, index = '0'] = /^device (.+?)(?:\[([0-9]+)\])? of QEMU$/.exec(head) ?? [];
    const prefix = context === undefined ? `qemu/state.${device}[${index}].` : `${context}/`;
    const ofAll = [...names].filter((name) => (context ?? device) !== undefined && name.startsWith(prefix));
    for (const name of ofAll) whole.add(name);
    if (ofAll.length > 0 || others.test(line)) continue;
    for (const name of expand(head)) {
      const [, field = '', element] = /^(.+)\[([0-9]+)\]$/.exec(name) ?? [];
      if (names.has(name)) (words === undefined ? whole : partly).add(name);
      else if (names.has(field)) elements.set(field, (elements.get(field) ?? new Set()).add(Number(element)));
      else expect.unreachable(`the report tells of ${line}, which the guest does not have`);
    }
  }
  return { whole, elements, partly };
}

/** `a[0-2].b`: `a[0].b`, `a[1].b`, `a[2].b`. */
function expand(name: string): string[] {
  const [, before = '', first, last, after = ''] = /^(.*?)\[([0-9]+)-([0-9]+)\](.*)$/.exec(name) ?? [];
  if (first === undefined) return [name];
  const count = Number(last) - Number(first) + 1;
  return Array.from({ length: count }, (_, at) => `${before}[${Number(first) + at}]${after}`).flatMap(expand);
}

export interface OracleOptions {
  /** Which bits of a field are changed, one after the other. */
  bits(field: GuestField): Iterable<number>;
  /** Bits that are known to mean nothing as the other ones are. */
  means?(name: string, bit: number): boolean;
  /** Lines of the report that tell of no field. */
  readonly others?: RegExp;
}

/** How many fields have their place, are lost, and both. Fails on a field that is in neither, or in both without a word. */
export function checkLost(
  contexts: readonly ForeignContext[],
  fields: readonly GuestField[],
  { bits, means = () => true, others = /^$/ }: OracleOptions,
): { set: number; lost: number; partly: number } {
  const { text, report } = fill(contexts);
  const { whole, elements, partly } = readLost(report.lost, fields, others);
  for (const name of whole) expect([name, partly.has(name) || elements.has(name)]).toEqual([name, false]);
  for (const field of fields) {
    const { name, data, elementBytes: width } = field;
    for (const bit of bits(field)) {
      const at = bit >> 3;
      flip(data, bit);
      const changed = fill(contexts);
      flip(data, bit);
      const isRead = changed.text !== text;
      const isTold = changed.report.lost.join('\n') !== report.lost.join('\n');
      const isExempt =
        elements.get(name)?.has(Math.floor(at / width)) || partly.has(name) || !means(name, bit);
      if (whole.has(name) ? isRead : !isExempt && !isRead && !isTold) {
        expect.unreachable(
          `${name}, bit ${bit}: ${isRead ? 'told as lost, but read' : 'neither read nor told'}`,
        );
      }
    }
  }
  const isPartly = ({ name }: GuestField): boolean => partly.has(name) || elements.has(name);
  return {
    set: fields.filter(({ name }) => !whole.has(name)).length,
    lost: whole.size,
    partly: fields.filter(isPartly).length,
  };
}

function flip(data: Uint8Array, bit: number): void {
  data[bit >> 3] = (data[bit >> 3] ?? 0) ^ (1 << (bit & 7));
}
