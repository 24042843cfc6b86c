/**
 * Every command and option of `chkpt`, once: the parser, the help texts and the shell completions are made from this table.
 *
 * Scripts depend on it. Names are never changed; docs/cli.md says the same in prose.
 */
import { chainCommands, parentOption } from './chain-commands.ts';
import type { Invocation } from './invocation.ts';
import { keyOption } from './key-options.ts';
import { linkCommands } from './link-commands.ts';
import { linkOptions } from './link-options.ts';

export interface OptionSpec {
  /** Without the dashes. */
  readonly name: string;
  /** One letter. */
  readonly short?: string;
  /** What stands for the value in help texts; absent for a flag. */
  readonly value?: string;
  /** Legal values, for an option that has few. */
  readonly choices?: readonly string[];
  /** The value is or ends in a file name. */
  readonly isFile?: boolean;
  /** May be given more than once. */
  readonly isRepeatable?: boolean;
  readonly summary: string;
}

export interface CommandModule {
  run(invocation: Invocation): Promise<void>;
}

export interface CommandSpec {
  readonly name: string;
  readonly summary: string;
  /** What follows the name, one usage line each. */
  readonly usages: readonly [string, ...string[]];
  /** Names of the arguments. */
  readonly operands: readonly string[];
  /** The last one may be given several times. */
  readonly repeatsLast?: boolean;
  /** How many of the last ones may be missing; the command says when. */
  readonly optionalOperands?: number;
  readonly options: readonly OptionSpec[];
  /** Common options that matter to it, for its help; it accepts the others too. */
  readonly common: readonly string[];
  readonly notes: readonly string[];
  readonly examples: readonly (readonly [line: string, meaning: string])[];
  /** True when there is something to clean up after Ctrl-C. */
  readonly isInterruptible: boolean;
  load(): Promise<CommandModule>;
}

const parts = ['memory', 'devices', 'cores', 'archdep'] as const;

const stateNote =
  'CONTEXT ends at the first dot; TAG is the rest up to the first =. FILE - is standard input or output.';
const qemuNote =
  'SOCKET is that of -qmp unix:SOCKET,server=on,wait=off. RAM must be shared: -m SIZE -machine TYPE,memory-backend=ram -object memory-backend-memfd,id=ram,size=SIZE,share=on (or memory-backend-file,…,mem-path=FILE).';
const baseNote =
  'BASE is what follows the last @: a guest-physical address, decimal with K, M, G or T (powers of 1024), or 0x…';

const movedNote =
  'An increment is loaded with its parents. They are found where they were when it was saved, also when a folder of them has moved as a whole; --parent says where one that moved alone is.';

/** Options that every command accepts, in the order of the help. */
export const commonOptions: readonly OptionSpec[] = [
  { name: 'threads', value: 'N', summary: 'worker threads, 1 to 64; default: number of processors' },
  {
    name: 'codec',
    value: 'CODEC',
    choices: ['auto', 'raw', 'lz4'],
    summary: 'how pages are stored: auto (default), raw or lz4',
  },
  { name: 'uuid', value: 'UUID', summary: 'UUID of the new checkpoint; default random' },
  { name: 'time', value: 'ISO', summary: 'creation time of the new checkpoint; default now' },
  { name: 'json', summary: 'one JSON document on standard output' },
  { name: 'quiet', short: 'q', summary: 'no progress, no summary' },
  { name: 'insecure', summary: 'allow connections off this machine that nothing protects' },
  { name: 'help', short: 'h', summary: 'this text' },
];

export const commands: readonly CommandSpec[] = [
  {
    name: 'save',
    summary: 'save RAM images and device state, or a QEMU guest, as a checkpoint',
    usages: [
      '--memory RAMFILE[@BASE]… [--state CONTEXT.TAG=FILE]… [--skip PART]… [--id ID] STORE…',
      '--qemu SOCKET [--copy-memory] [--skip PART]… [--id ID] STORE…',
      '--parent URL (--memory RAMFILE[@BASE]… | --qemu SOCKET) [OPTION]… STORE…',
    ],
    operands: ['STORE'],
    repeatsLast: true,
    options: [
      {
        name: 'memory',
        value: 'RAMFILE[@BASE]',
        isFile: true,
        isRepeatable: true,
        summary: 'a RAM image, and where it lies in guest memory; default at 0',
      },
      {
        name: 'state',
        value: 'CONTEXT.TAG=FILE',
        isFile: true,
        isRepeatable: true,
        summary: 'save the content of FILE as the value TAG of CONTEXT',
      },
      {
        name: 'skip',
        value: 'PART',
        choices: parts,
        isRepeatable: true,
        summary: 'leave out memory, devices, cores or archdep; recorded in the checkpoint',
      },
      {
        name: 'scrub',
        value: 'BASE+SIZE',
        isRepeatable: true,
        summary: 'a secret: store zeros for this guest memory, in whole pages; recorded in the checkpoint',
      },
      {
        name: 'leave-out',
        value: 'BASE+SIZE',
        isRepeatable: true,
        summary: 'do not store this guest memory; loads leave it alone; recorded in the checkpoint',
      },
      {
        name: 'qemu',
        value: 'SOCKET',
        isFile: true,
        summary: 'save the guest of the QEMU with this QMP socket; it stands still meanwhile, then runs on',
      },
      {
        name: 'copy-memory',
        summary:
          'with --qemu: copy RAM aside, so that the guest runs on while it is written; takes as much free memory',
      },
      {
        name: 'id',
        value: 'ID',
        summary: 'identity of the machine; default: name of the first RAM image, or the -name of QEMU',
      },
      {
        name: 'parent',
        value: 'URL',
        isFile: true,
        isRepeatable: true,
        summary:
          'save an increment: only pages that differ from the checkpoint there, which has to stay; given again: where a parent of that one is that has moved',
      },
      keyOption,
      ...linkOptions,
    ],
    common: ['threads', 'codec', 'uuid', 'time', 'json', 'quiet', 'insecure'],
    notes: [
      baseNote,
      stateNote,
      qemuNote,
      'Nothing is visible at STORE before everything is written and flushed; an older checkpoint stays until then.',
      'STORE tcp://HOST:PORT, tls://HOST:PORT or unix:PATH is a chkpt receive or chkpt load that listens there.',
    ],
    examples: [
      ['chkpt save --memory ram.img vm.chkpt', 'one image, as a file'],
      ['chkpt save --memory low.img --memory high.img@4G dir:/ckpt/vm', 'two regions, as a directory'],
      [
        'chkpt save --memory ram.img dir+pool:/ckpt/vm',
        'what checkpoints of /ckpt have in common is stored once',
      ],
      ['chkpt save --memory ram.img --state pic.irr=irr.bin --json vm.chkpt', 'with device state'],
      ['chkpt save --memory ram.img --parent monday.chkpt tuesday.chkpt', 'only what changed since'],
      ['chkpt save --memory ram.img --key-file vm.key vm.chkpt', 'encrypted'],
      ['chkpt save --memory ram.img --scrub 0x100000+64K vm.chkpt', 'without a secret'],
      ['chkpt save --qemu vm.qmp --copy-memory vm.chkpt', 'a QEMU guest, stopped for a moment only'],
      ['chkpt save --memory ram.img tls://host:7000 --psk-file key', 'to a chkpt receive on another machine'],
    ],
    isInterruptible: true,
    load: () => import('./commands/save.ts'),
  },
  {
    name: 'load',
    summary: 'write the RAM images and state of a checkpoint to files, or into a QEMU',
    usages: [
      'STORE [--memory OUTFILE[@BASE]]… [--state CONTEXT.TAG=FILE]… [--skip PART]… [OPTION]…',
      'STORE --qemu SOCKET [--paused] [--skip PART]… [OPTION]…',
    ],
    operands: ['STORE'],
    options: [
      {
        name: 'memory',
        value: 'OUTFILE[@BASE]',
        isFile: true,
        isRepeatable: true,
        summary: 'where the region at BASE goes; BASE may be left out when there is one region',
      },
      {
        name: 'state',
        value: 'CONTEXT.TAG=FILE',
        isFile: true,
        isRepeatable: true,
        summary: 'write the bytes of the value TAG of CONTEXT to FILE',
      },
      {
        name: 'skip',
        value: 'PART',
        choices: parts,
        isRepeatable: true,
        summary: 'do not load memory, devices, cores or archdep',
      },
      {
        name: 'qemu',
        value: 'SOCKET',
        isFile: true,
        summary: 'load into the QEMU with this QMP socket and let it run; it waits with -incoming defer',
      },
      { name: 'paused', summary: 'with --qemu: leave the guest standing still' },
      parentOption,
      {
        name: 'as',
        value: 'WHAT',
        choices: ['continue', 'clone'],
        summary:
          'continue: the machine that was saved goes on, once; clone: another one that begins as it was',
      },
      {
        name: 'force',
        summary:
          'with --as: continue a second time, or clone a machine that cannot be told that it is a clone',
      },
      keyOption,
      ...linkOptions,
    ],
    common: ['threads', 'json', 'quiet', 'insecure'],
    notes: [
      baseNote,
      stateNote,
      `${qemuNote} Give it the arguments of the QEMU that was saved, and -incoming defer.`,
      'All files appear together, after the whole checkpoint and its parents were verified; after a failure none does.',
      movedNote,
    ],
    examples: [
      ['chkpt load vm.chkpt --memory ram.img', 'one region'],
      ['chkpt load dir:/ckpt/vm --memory low.img@0 --memory high.img@4G', 'two regions'],
      ['chkpt load vm.chkpt --skip memory --state pic.irr=irr.bin', 'device state only'],
      ['chkpt load vm.chkpt --qemu new.qmp', 'into a QEMU that waits'],
      ['chkpt load vm.chkpt --qemu new.qmp --as continue', 'and no second time'],
    ],
    isInterruptible: true,
    load: () => import('./commands/load.ts'),
  },
  {
    name: 'info',
    summary: 'what a checkpoint says about itself',
    usages: ['STORE [--parent URL]… [--json]'],
    operands: ['STORE'],
    options: [parentOption, keyOption],
    common: ['json'],
    notes: [
      'Reads the index, not the memory: chkpt verify tells whether all of it is sound.',
      'Of an increment it shows the chain. What is wrong with a parent stands there, too, and is no failure.',
    ],
    examples: [
      ['chkpt info vm.chkpt', 'for people'],
      ['chkpt info --json vm.chkpt', 'for programs'],
    ],
    isInterruptible: false,
    load: () => import('./commands/info.ts'),
  },
  {
    name: 'ls',
    summary: 'list contexts and tags',
    usages: ['STORE [--json]'],
    operands: ['STORE'],
    options: [keyOption],
    common: ['json'],
    notes: ['One line for each tag: context, tag, type, bytes of the value, value or the start of it.'],
    examples: [['chkpt ls vm.chkpt', 'contexts, tags, types, lengths, values']],
    isInterruptible: false,
    load: () => import('./commands/ls.ts'),
  },
  {
    name: 'cat',
    summary: 'write one value to standard output',
    usages: ['STORE CONTEXT TAG [--raw]'],
    operands: ['STORE', 'CONTEXT', 'TAG'],
    options: [
      { name: 'raw', summary: 'the bytes of the value as they stand in the checkpoint, whatever its type' },
      keyOption,
    ],
    common: ['json'],
    notes: ['Bytes and strings are written as they are, numbers as text, vectors with one element per line.'],
    examples: [
      ['chkpt cat vm.chkpt header vm.id', 'a string'],
      ['chkpt cat --raw vm.chkpt header region.base | xxd', 'a vector as it is stored'],
    ],
    isInterruptible: false,
    load: () => import('./commands/cat.ts'),
  },
  {
    name: 'verify',
    summary: 'read all of a checkpoint and its parents, and check every digest',
    usages: ['STORE [--alone | --parent URL…]'],
    operands: ['STORE'],
    options: [
      { name: 'alone', summary: 'of an increment: do not read its parents' },
      parentOption,
      keyOption,
    ],
    common: ['threads', 'json', 'quiet'],
    notes: [
      'Exit code 0: every byte is as it was saved. 3: damaged. The check detects accidents; of an encrypted checkpoint also forgery.',
      'Of an increment all parents are read, too, and each must be the one that its child names: 1 when one is missing or another checkpoint.',
    ],
    examples: [['chkpt verify dir:/ckpt/vm && rm ram.img', 'before the original goes']],
    isInterruptible: true,
    load: () => import('./commands/verify.ts'),
  },
  ...chainCommands,
  ...linkCommands,
];

/** Words of the contract that this version answers with a usage error. */
export const laterCommands: readonly string[] = ['bench'];

/** Shells that `chkpt completion` knows. */
export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];
