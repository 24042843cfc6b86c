/**
 * Every figure the benchmark knows, what it is compared with and what we aim at. A target is information: missing one never
 * fails a run. docs/performance.md explains each row.
 */

export interface Limits {
  readonly atLeast?: number;
  readonly atMost?: number;
  /** The target is for this many threads and more. */
  readonly threadsMin?: number;
}

export interface Figure {
  readonly what: string;
  /** Baselines by name, the one with the target first. Empty for a value with a unit of its own. */
  readonly baselines: Readonly<Record<string, Limits>>;
  /** For values. */
  readonly limits?: Limits;
}

/** What baselines do, by name. All but the commands run in this process, over the same bytes, with the same threads. */
export const baselines = {
  liblz4:
    'LZ4_compress_fast of the same stored pages in the same blocks, from memory to one buffer per thread',
  'liblz4 decode':
    'LZ4_decompress_safe of the same blocks into fresh huge pages, as many as the guest has extents with stored pages',
  'liblz4 decode packed': 'the same with all blocks one behind the other: the least population there can be',
  memcpy: 'memcpy of the pages that are not zero to memory touched before',
  read: 'sum of every word',
  palacios:
    'original framing, one record per page, one writev each, one thread, to a file on the scratch file system',
  'lz4 -1': 'the command as a whole process, image file to file, both on the scratch file system',
  'lz4 -d': 'the command as a whole process, its own file to an image file, both on the scratch file system',
  'gzip -1':
    'the command as a whole process, image file to file, both on the scratch file system; one thread',
  'pigz -1': 'the same with as many threads as the save',
  'gzip -d': 'the command as a whole process, its own file to an image file, both on the scratch file system',
  'load and save': 'loadVm into fresh memory, then saveVm of it, one after the other',
  'whole save': 'saveVm of the same guest without a parent, LZ4, to file:',
  'whole pages': 'the same pages encoded as they are',
  'whole load': 'loadVm of the same checkpoint from mem: into memory that was touched before',
  'save without key': 'the same save, not encrypted',
  'load without key': 'the same load of the same content, not encrypted',
  'stopped save': 'the pause of the same save without live',
  'bare protection': 'UFFDIO_WRITEPROTECT over the same memory, all that is present, 16 MiB a call',
  PAGEMAP_SCAN: 'the ioctl alone over the same range: takes what was written and protects it',
  'bit loop': 'a loop over the bits of the same set',
  'plain lazy load':
    'a lazy load without a recorded working set and without fill, which touches the same pages in the same order',
  'parallel PUT':
    'as many bytes in objects of 8 MiB to the same service, four at a time, by the same client; bodies ready, hashed as a signed request has to',
  'parallel GET': 'those objects read, four at a time, and thrown away',
  'idle process': 'Node with chkpt and the same guest memory, doing nothing',
} as const;

export type Baseline = keyof typeof baselines;

export const figures = {
  'save.lz4.null': { what: 'saveVm, LZ4, to null:', baselines: { liblz4: { atLeast: 0.9 } } },
  'save.lz4.mem': { what: 'saveVm, LZ4, to mem:', baselines: { liblz4: {} } },
  'save.raw.null': {
    what: 'saveVm, no compression, to null:',
    baselines: { memcpy: { atLeast: 0.7, threadsMin: 2 }, read: {} },
  },
  'save.lz4.file': {
    what: 'saveVm, LZ4, guest memory to file:',
    baselines: { 'lz4 -1': { atLeast: 2.5 }, palacios: {} },
  },
  'save.lz4.file.size': {
    what: 'bytes of that checkpoint',
    baselines: { 'lz4 -1': { atLeast: 1 } },
  },
  'save.lz4.image': { what: 'saveVm, LZ4, image file to file:', baselines: { 'lz4 -1': {} } },
  'save.lz4.command': {
    what: '`chkpt save --memory IMAGE file:OUT` as a whole process',
    baselines: { 'lz4 -1': {} },
  },
  'save.raw.file': { what: 'saveVm, no compression, to file:', baselines: { palacios: {} } },
  'seal.save.lz4': {
    what: 'saveVm, LZ4, to file:, encrypted',
    baselines: { 'save without key': { atLeast: 0.65 } },
  },
  'seal.save.raw': {
    what: 'saveVm, no compression, to file:, encrypted',
    baselines: { 'save without key': { atLeast: 0.65 } },
  },
  'seal.load.lz4': {
    what: 'loadVm, LZ4, file: in the page cache into fresh memory, encrypted',
    baselines: { 'load without key': {} },
  },
  'save.increment': {
    what: 'saveVm with a parent, LZ4, to file:, 1 % of the pages changed, scattered, told by a tracker',
    baselines: { 'whole save': { atLeast: 33.3 } },
  },
  'rollback.scattered': {
    what: 'rollback of a ring, LZ4, 1 % of the pages changed, scattered',
    baselines: { 'whole load': { atLeast: 50 } },
  },
  'rollback.blocks': {
    what: 'rollback of a ring, LZ4, 1 % of the pages changed, in whole blocks of 64 KiB',
    baselines: { 'whole load': { atLeast: 50 } },
  },
  'rollback.raw.blocks': {
    what: 'rollback of a ring, pages as they are, 1 % of the pages changed, in whole blocks of 64 KiB',
    baselines: { 'whole load': { atLeast: 50 } },
  },
  'rollback.raw.scattered': {
    what: 'rollback of a ring, pages as they are, 1 % of the pages changed, scattered',
    baselines: { 'whole load': { atLeast: 50 } },
  },
  'save.increment.size': { what: 'bytes of that checkpoint', baselines: { 'whole save': { atLeast: 40 } } },
  'migrate.delta': {
    what: 'encoding of pages that a migration sends again, 1 to 16 words of each changed, as differences',
    baselines: { 'whole pages': { atLeast: 1 } },
  },
  'migrate.delta.size': { what: 'bytes of that stream', baselines: { 'whole pages': { atLeast: 3.3 } } },
  'load.lz4.file': {
    what: 'loadVm, LZ4, file: in the page cache into fresh memory',
    baselines: { 'liblz4 decode': { atLeast: 0.8 }, 'liblz4 decode packed': {} },
  },
  'load.raw.file': { what: 'loadVm, no compression, likewise', baselines: { memcpy: {} } },
  'load.lz4.tool': { what: 'load.lz4.file beside a command', baselines: { 'lz4 -d': {} } },
  'save.gem5': {
    what: 'saveVm, guest memory to gem5:',
    baselines: { 'gzip -1': { atLeast: 1.8 }, 'pigz -1': { atLeast: 0.9 } },
  },
  'load.gem5': {
    what: 'loadVm from gem5: in the page cache into fresh memory',
    baselines: { 'gzip -d': { atLeast: 1.5 } },
  },
  'convert.file': {
    what: 'convertCheckpoint, file: to file:, read back and compared',
    baselines: { 'load and save': { atLeast: 0.8 } },
  },
  'convert.gem5': {
    what: 'convertCheckpoint, gem5: to file:, read back and compared',
    baselines: { 'load and save': { atLeast: 0.8 } },
  },
  'save.s3': {
    what: 'saveVm, no compression, to s3: on loopback, Ceph with one store in memory',
    baselines: { 'parallel PUT': { atLeast: 0.8 } },
  },
  'load.s3': {
    what: 'loadVm of that checkpoint into fresh memory',
    baselines: { 'parallel GET': {} },
  },
  'scan.guest': { what: 'GuestMemory.scan of guest memory', baselines: { read: {} } },
  'scan.zero': {
    what: 'GuestMemory.scan of resident zero memory',
    baselines: { read: { atLeast: 0.85 } },
  },
  'scan.zero.kernel': {
    what: 'the zero-page kernel alone over the same memory',
    baselines: { read: { atLeast: 0.85 } },
  },
  'save.zero.null': { what: 'saveVm of resident zero memory to null:', baselines: { read: {} } },
  'scan.untouched': { what: 'GuestMemory.countPresent of untouched memory', baselines: { read: {} } },
  'scan.untouched.cost': { what: 'its time', baselines: {}, limits: { atMost: 2 } },
  'save.untouched': { what: 'saveVm of untouched memory to null:', baselines: { read: {} } },
  'save.untouched.cost': { what: 'its time', baselines: {}, limits: { atMost: 2 } },
  'track.harvest': {
    what: 'MemoryTracker.harvest, write-protect, of resident memory; each page with content',
    baselines: { PAGEMAP_SCAN: { atLeast: 0.77 } },
  },
  'track.runs.sparse': {
    what: 'runs of a page set of 16 GiB with at most 1 % of its pages',
    baselines: { 'bit loop': { atLeast: 10 } },
  },
  'track.runs.dense': {
    what: 'runs of a page set of 16 GiB with 10 % and more',
    baselines: { 'bit loop': { atLeast: 1 } },
  },
  'footprint.save': {
    what: 'peak memory of a process that saves, less the guest',
    baselines: { 'idle process': {} },
  },
  'footprint.save.bytes': { what: 'the same', baselines: {}, limits: { atMost: 96 * 1024 * 1024 } },
  'footprint.load': {
    what: 'peak memory of a process that loads, less the guest',
    baselines: { 'idle process': {} },
  },
  'footprint.load.bytes': { what: 'the same', baselines: {}, limits: { atMost: 96 * 1024 * 1024 } },
  'footprint.convert': {
    what: 'peak memory of a process that converts a checkpoint',
    baselines: { 'idle process': {} },
  },
  'footprint.convert.bytes': { what: 'the same', baselines: {}, limits: { atMost: 112 * 1024 * 1024 } },
  'footprint.s3.save': {
    what: 'peak memory of a process that saves into an object store, less the guest',
    baselines: { 'idle process': {} },
  },
  'footprint.s3.save.bytes': { what: 'the same', baselines: {}, limits: { atMost: 160 * 1024 * 1024 } },
  'footprint.s3.load': {
    what: 'peak memory of a process that loads from an object store, less the guest',
    baselines: { 'idle process': {} },
  },
  'footprint.s3.load.bytes': { what: 'the same', baselines: {}, limits: { atMost: 160 * 1024 * 1024 } },
  'footprint.s3.convert': {
    what: 'peak memory of a process that converts a checkpoint of an object store',
    baselines: { 'idle process': {} },
  },
  'footprint.s3.convert.bytes': { what: 'the same', baselines: {}, limits: { atMost: 160 * 1024 * 1024 } },
  'loop.delay': {
    what: 'event loop, p99 of the interval of a 1 ms timer',
    baselines: {},
    limits: { atMost: 10 },
  },
  'loop.busy': {
    what: 'CPU time of the main thread, share of the wall time',
    baselines: {},
    limits: { atMost: 0.1 },
  },
  'cancel.save': {
    what: 'from the abort of saveVm, LZ4, to file: until it has ended',
    baselines: {},
    limits: { atMost: 50 },
  },
  'cancel.load': {
    what: 'from the abort of loadVm, LZ4, from file: until it has ended',
    baselines: {},
    limits: { atMost: 50 },
  },
  'live.pause': {
    what: 'pause of a live saveVm to null:, while a thread writes',
    baselines: { 'stopped save': {}, 'bare protection': {} },
  },
  'live.pause.time': {
    what: 'the same, as a time',
    baselines: {},
    limits: { atMost: 10 },
  },
  'live.writes': { what: 'rate at which the guest writes during a live save, of its own', baselines: {} },
  'lazy.start': {
    what: 'loadVm, lazy, from file: in the page cache until the guest can run',
    baselines: {},
    limits: { atMost: 15 },
  },
  'lazy.fault.bare': {
    what: 'a userfaultfd fault that another thread serves with a page that is ready',
    baselines: {},
  },
  'lazy.fault.p50': {
    what: 'touching a block of a lazy load, LZ4, in the page cache, above that; median',
    baselines: {},
    limits: { atMost: 0.06 },
  },
  'lazy.fault.p99': { what: 'the same, 99th percentile', baselines: {}, limits: { atMost: 0.25 } },
  'lazy.replay': {
    what: 'touching 1000 blocks after a lazy load that replays them',
    baselines: { 'plain lazy load': { atLeast: 2 } },
  },
  'loop.utilization': { what: 'performance.eventLoopUtilization', baselines: {} },
} as const satisfies Record<string, Figure>;

export type FigureName = keyof typeof figures;

export function figureOf(name: FigureName): Figure {
  return figures[name];
}

export const figureNames = Object.keys(figures) as readonly FigureName[];

/**
 * True when `name` is selected, or is below what is (`save.lz4` selects `save.lz4.null`), or above it: measuring
 * `save.lz4.file.size` takes measuring `save.lz4.file`.
 */
export function isSelected(name: string, selection: readonly string[]): boolean {
  if (selection.length === 0) return true;
  return selection.some((wanted) => `${name}.`.startsWith(`${wanted}.`) || wanted.startsWith(`${name}.`));
}

/** The limits that hold for a measurement with this many threads. */
export function limitsFor(limits: Limits | undefined, threads: number): Limits | undefined {
  if (limits === undefined || threads < (limits.threadsMin ?? 1)) return undefined;
  const { threadsMin: _, ...rest } = limits;
  return rest;
}
