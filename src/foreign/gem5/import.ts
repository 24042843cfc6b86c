/**
 * What a checkpoint that gem5 itself wrote is in contexts and tags: a header that tells of the machine, its x86 cores as KVM has them,
 * and its text, whole, so that nothing is lost.
 */
import type { MemoryRegion } from '../../context/memory-frames.ts';
import type { ErrorDetails } from '../../errors/index.ts';
import { pageBytes } from '../../limits.ts';
import type { ForeignContext } from '../foreign-format.ts';
import { contextsOfKvm } from '../x86/kvm-core.ts';
import { TagList } from '../x86/tag-list.ts';
import type { IniDocument } from './ini.ts';
import { coreOfGem5, coresOf } from './x86/gem5-core.ts';

/** Bits of `options.skip`, docs/format.md section 11. */
const skipDevices = 2;
const skipCores = 4;
const skipArchdep = 8;

export interface Imported {
  readonly document: IniDocument;
  readonly text: Uint8Array;
  readonly regions: readonly MemoryRegion[];
  readonly system: string | undefined;
}

/** Throws `CHKPT_FORMAT` for cores whose values are none. */
export function importedContexts(source: Imported, details: ErrorDetails): ForeignContext[] {
  const { document, text, regions, system } = source;
  const cores = coresOf(document, system).map((sections) => coreOfGem5(sections, details));
  const header = new TagList();
  header.add('producer', 'string', 'gem5');
  header.add('vm.id', 'string', 'gem5');
  header.add('options.skip', 'u32', skipDevices | (cores.length === 0 ? skipCores | skipArchdep : 0));
  header.add('page.bytes', 'u32', pageBytes);
  header.add(
    'region.base',
    'u64[]',
    BigUint64Array.from(regions, ({ base }) => base),
  );
  header.add(
    'region.bytes',
    'u64[]',
    BigUint64Array.from(regions, ({ bytes }) => bytes),
  );
  header.add('core.count', 'u32', cores.length);
  header.add('cpu.vendor', 'string', cores.length === 0 ? '' : 'gem5');
  header.add('cpu.model', 'string', cores.length === 0 ? '' : 'x86');
  return [
    { name: 'header', tags: header.tags },
    ...cores.flatMap(contextsOfKvm),
    { name: 'gem5', tags: [{ name: 'm5.cpt', type: 'bytes', data: text }] },
  ];
}
