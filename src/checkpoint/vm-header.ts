/**
 * The `header` context: who the machine is and what it looks like. Written first, checked first on load, each mismatch with an
 * error of its own (docs/format.md section 11).
 */
import type { MemoryRegion } from '../context/memory-frames.ts';
import { defineState, type StateOf, string, u32, u64, vector } from '../context/state.ts';
import { CheckpointError, type ErrorCode } from '../errors/index.ts';
import { pageBytes } from '../limits.ts';
import { describeRegions } from '../memory/index.ts';
import { decodeSkip, encodeSkip, type SkipPart, type VirtualMachine } from './virtual-machine.ts';

export const headerContext = 'header';

const headerState = defineState(
  {
    producer: string,
    vm: { id: string },
    options: { skip: u32 },
    page: { bytes: u32 },
    region: { base: vector(u64), bytes: vector(u64) },
    core: { count: u32 },
    cpu: { vendor: string, model: string },
  },
  { strict: false },
);

export { headerState };

/** Content of the `header` context. */
export type VmHeader = StateOf<typeof headerState>;

/** What a load accepts although it differs. */
export type IgnoredMismatch = 'id' | 'cpu';

/** What a header needs to know of a machine. */
type HeaderFacts = Pick<VirtualMachine, 'id' | 'cpu'> & {
  readonly cores: readonly unknown[];
  readonly memory?: { readonly regions: readonly MemoryRegion[] } | undefined;
};

export function headerOf(vm: HeaderFacts, skip: readonly SkipPart[], producer: string): VmHeader {
  const regions = vm.memory?.regions ?? [];
  return {
    producer,
    vm: { id: vm.id },
    options: { skip: encodeSkip(skip) },
    page: { bytes: pageBytes },
    region: {
      base: BigUint64Array.from(regions, ({ base }) => base),
      bytes: BigUint64Array.from(regions, ({ bytes }) => bytes),
    },
    core: { count: vm.cores.length },
    cpu: { vendor: vm.cpu.vendor, model: vm.cpu.model },
  };
}

/** Throws `CHKPT_VM_PAGE_SIZE`, `CHKPT_VM_ID`, `CHKPT_VM_CPU`, `CHKPT_VM_REGIONS`, `CHKPT_VM_CORES`, `CHKPT_SKIPPED`. */
export function checkHeader(
  header: VmHeader,
  vm: VirtualMachine,
  skip: readonly SkipPart[],
  ignore: readonly IgnoredMismatch[],
): void {
  const check = (code: ErrorCode, what: string, saved: string | number, actual: string | number): void => {
    if (saved !== actual) {
      throw new CheckpointError(code, `the checkpoint has another ${what} than the machine`, {
        details: { context: headerContext, expected: actual, actual: saved },
      });
    }
  };
  check('CHKPT_VM_PAGE_SIZE', 'page size', header.page.bytes, pageBytes);
  if (!ignore.includes('id')) check('CHKPT_VM_ID', 'machine id', header.vm.id, vm.id);
  if (!ignore.includes('cpu')) {
    check('CHKPT_VM_CPU', 'CPU vendor', header.cpu.vendor, vm.cpu.vendor);
    check('CHKPT_VM_CPU', 'CPU model', header.cpu.model, vm.cpu.model);
  }
  checkSkip(header, skip);
  if (!skip.includes('memory')) {
    const regions = describeRegions(vm.memory?.regions ?? []);
    check('CHKPT_VM_REGIONS', 'region table', describeRegions(regionsOf(header)), regions);
  }
  if (!skip.includes('cores')) check('CHKPT_VM_CORES', 'number of cores', header.core.count, vm.cores.length);
}

/** The region table of a header. */
export function regionsOf(header: VmHeader): { base: bigint; bytes: bigint }[] {
  return Array.from(header.region.base, (base, i) => ({ base, bytes: header.region.bytes[i] ?? 0n }));
}

function checkSkip(header: VmHeader, skip: readonly SkipPart[]): void {
  const covered = (part: SkipPart): boolean =>
    skip.includes(part) || (part === 'archdep' && skip.includes('cores'));
  const known = decodeSkip(header.options.skip);
  if (encodeSkip(known) !== header.options.skip) {
    throw new CheckpointError('CHKPT_VERSION', 'a part that this version does not know was skipped', {
      details: { context: headerContext, tag: 'options.skip', actual: header.options.skip },
    });
  }
  const missing = known.find((part) => !covered(part));
  if (missing !== undefined) {
    throw new CheckpointError('CHKPT_SKIPPED', `${missing} was skipped when this checkpoint was saved`, {
      details: { context: headerContext, tag: 'options.skip' },
    });
  }
}
