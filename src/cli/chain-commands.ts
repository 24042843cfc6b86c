/** The commands that make checkpoints of checkpoints; part of the table in command-table.ts. */
import type { CommandSpec, OptionSpec } from './command-table.ts';
import { keyOption, targetKeyOptions } from './key-options.ts';

/** Of every command that reads a chain. */
export const parentOption: OptionSpec = {
  name: 'parent',
  value: 'URL',
  isFile: true,
  isRepeatable: true,
  summary: 'where a parent is, if not where it was when its child was saved',
};

export const chainCommands: readonly CommandSpec[] = [
  {
    name: 'flatten',
    summary: 'make one checkpoint of an increment and its parents',
    usages: ['STORE TO [--parent URL]…'],
    operands: ['STORE', 'TO'],
    options: [parentOption, keyOption, ...targetKeyOptions],
    common: ['threads', 'codec', 'uuid', 'time', 'json', 'quiet'],
    notes: [
      'TO may be STORE itself: its children then find the new checkpoint in its place. Needs free memory of the size of the guest.',
    ],
    examples: [
      ['chkpt flatten monday.chkpt whole.chkpt', 'beside the chain'],
      ['chkpt flatten monday.chkpt monday.chkpt', 'in place: its parents are no longer needed'],
    ],
    isInterruptible: true,
    load: () => import('./commands/flatten.ts'),
  },
  {
    name: 'convert',
    summary: 'copy a checkpoint into another store, of whatever format',
    usages: ['FROM TO [--no-check]'],
    operands: ['FROM', 'TO'],
    options: [{ name: 'no-check', summary: 'do not read TO back' }, keyOption, ...targetKeyOptions],
    common: ['threads', 'json', 'quiet', 'insecure'],
    notes: [
      'Between native stores the bytes stay what they are, and an increment stays an increment. Other formats hold no increments: chkpt flatten first.',
    ],
    examples: [
      ['chkpt convert monday.chkpt dir:monday', 'one file into a folder'],
      ['chkpt convert dir:monday monday.chkpt', 'and back: the same bytes'],
      ['chkpt convert monday.chkpt secret.chkpt --to-key-file vm.key', 'encrypted from now on'],
      ['chkpt convert palacios+net:a:127.0.0.1:7000 vm.chkpt', 'what a Palacios sends'],
    ],
    isInterruptible: true,
    load: () => import('./commands/convert.ts'),
  },
  {
    name: 'diff',
    summary: 'which pages of two checkpoints differ',
    usages: ['A B [--parent URL]…'],
    operands: ['A', 'B'],
    options: [parentOption, keyOption],
    common: ['threads', 'json'],
    notes: [
      'Reads both with their parents. Exit code 0 whether they differ or not; --json says how many pages do.',
    ],
    examples: [
      ['chkpt diff monday.chkpt tuesday.chkpt', 'pages, per region, with a strip of where they lie'],
    ],
    isInterruptible: true,
    load: () => import('./commands/diff.ts'),
  },
  {
    name: 'prune',
    summary: 'keep the newest checkpoints of a chain, remove the others',
    usages: ['STORE --keep N [--parent URL]…'],
    operands: ['STORE'],
    options: [{ name: 'keep', value: 'N', summary: 'how many, STORE included' }, parentOption, keyOption],
    common: ['threads', 'codec', 'json', 'quiet'],
    notes: [
      'STORE is the newest one. The oldest that stays is made whole in its place before anything is removed.',
      'Only this chain is looked at: checkpoints that branch off a removed one lose their parent.',
    ],
    examples: [['chkpt prune today.chkpt --keep 7', 'a week']],
    isInterruptible: true,
    load: () => import('./commands/prune.ts'),
  },
  {
    name: 'gc',
    summary: 'find what killed saves and loads have left behind, and remove it',
    usages: ['FOLDER|s3://BUCKET/PREFIX [--older-than HOURS] [--remove]'],
    operands: ['FOLDER'],
    options: [
      { name: 'remove', summary: 'remove it; otherwise it is only told' },
      {
        name: 'older-than',
        value: 'HOURS',
        summary: 'of s3: only; what is younger may belong to a save that runs; default 24',
      },
    ],
    common: ['json', 'quiet'],
    notes: [
      'Looks into FOLDER and the checkpoints and pools that are folders in it; a pack of a pool goes when no checkpoint uses it, wherever that lies. What belongs to a process that runs is left alone, and so is every checkpoint.',
      'In s3: it looks at every key that begins with PREFIX, for unfinished uploads, data that no manifest names, and claims on checkpoints that are not there.',
    ],
    examples: [
      ['chkpt gc /var/lib/checkpoints', 'what is there'],
      ['chkpt gc /var/lib/checkpoints --remove', 'away with it'],
      ['chkpt gc s3://backups/vm/ --older-than 48', 'in an object store'],
    ],
    isInterruptible: false,
    load: () => import('./commands/gc.ts'),
  },
];
