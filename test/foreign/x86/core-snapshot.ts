/** All of a core at once. */
import type { ForeignContext } from '../../../src/foreign/foreign-format.ts';
import {
  type CoreSource,
  type CoreState,
  registerNames,
  segmentNames,
} from '../../../src/foreign/x86/core-state.ts';
import { guestOfKvm } from '../../../src/foreign/x86/guest.ts';

/** `msrs`: those that are asked for. */
export function snapshotOf(core: CoreSource, msrs: Iterable<number> = []): CoreState {
  const { apic, floats } = core;
  const known = <T>(numbers: Iterable<number>, read: (at: number) => T | undefined): Map<number, T> =>
    new Map(
      Array.from(numbers, (at) => [at, read(at)] as const).filter(
        (entry): entry is [number, T] => entry[1] !== undefined,
      ),
    );
  return {
    registers: registerNames.map((_, at) => core.register(at)),
    rip: core.rip,
    rflags: core.rflags,
    segments: Object.fromEntries(
      segmentNames.map((name) => [name, core.segment(name)]),
    ) as CoreState['segments'],
    gdt: core.table('gdt'),
    idt: core.table('idt'),
    control: known([0, 2, 3, 4, 8], (cr) => core.control(cr)),
    debug: known([0, 1, 2, 3, 6, 7], (dr) => core.debug(dr)),
    msrs: known(msrs, (msr) => core.msr(msr)),
    xcr0: core.xcr0,
    apicBase: core.apicBase,
    apic: apic && Uint32Array.from({ length: 64 }, (_, at) => apic.register(at)),
    floats: floats && { fxsave: fxsaveOf(floats) },
    activity: core.activity,
  };
}

/** Core `index` of a KVM guest. */
export function kvmCore(
  contexts: readonly ForeignContext[],
  index: number,
  msrs: Iterable<number> = [],
): CoreState | undefined {
  const core = guestOfKvm(contexts).cores[index];
  return core && snapshotOf(core, msrs);
}

function fxsaveOf(floats: NonNullable<CoreSource['floats']>): Uint8Array {
  const fxsave = new Uint8Array(512);
  const view = new DataView(fxsave.buffer);
  view.setUint16(0, floats.controlWord, true);
  view.setUint16(2, floats.statusWord, true);
  view.setUint8(4, floats.usedTags);
  view.setUint16(6, floats.opcode, true);
  view.setBigUint64(8, floats.instructionPointer, true);
  view.setBigUint64(16, floats.dataPointer, true);
  view.setUint32(24, floats.mxcsr, true);
  for (let at = 0; at < 8; at += 1) fxsave.set(floats.stack(at), 32 + 16 * at);
  for (let at = 0; at < 32; at += 1) view.setBigUint64(160 + 8 * at, floats.xmmHalf(at), true);
  return fxsave;
}
