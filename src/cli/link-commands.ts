/** The commands that work over connections; part of the table in command-table.ts. */
import type { CommandSpec } from './command-table.ts';
import { keyOption, targetKeyOptions } from './key-options.ts';
import { linkOptions } from './link-options.ts';

const journalOption = {
  name: 'journal',
  value: 'FOLDER',
  isFile: true,
  summary: 'where migrations are recorded; default: the state folder',
} as const;

/** Of both ends of a migration. */
const migrationOptions = [
  journalOption,
  {
    name: 'witness',
    value: 'FOLDER',
    isFile: true,
    summary: 'a folder that both hosts reach: decides when the link does not come back',
  },
] as const;

export const linkCommands: readonly CommandSpec[] = [
  {
    name: 'receive',
    summary: 'take a checkpoint, RAM images or the guest of a QEMU that another process sends',
    usages: [
      'ADDRESS STORE [--count N] [OPTION]…',
      'ADDRESS --memory OUTFILE[@BASE]… [--state CONTEXT.TAG=FILE]… [OPTION]…',
      'ADDRESS --qemu SOCKET [OPTION]…',
    ],
    operands: ['ADDRESS', 'STORE'],
    optionalOperands: 1,
    options: [
      { name: 'count', value: 'N', summary: 'take N checkpoints, one after the other; default 1' },
      { name: 'once', summary: 'take one checkpoint: the default' },
      {
        name: 'memory',
        value: 'OUTFILE[@BASE]',
        isFile: true,
        isRepeatable: true,
        summary: 'take what chkpt send --memory sends; where the region at BASE goes',
      },
      {
        name: 'state',
        value: 'CONTEXT.TAG=FILE',
        isFile: true,
        isRepeatable: true,
        summary: 'with --memory: where a value goes; all contexts that are sent must be named',
      },
      {
        name: 'qemu',
        value: 'SOCKET',
        isFile: true,
        summary:
          'take the guest that chkpt send sends into this QEMU, which waits (-incoming defer), and let it run',
      },
      { name: 'streams', value: 'N', summary: 'with --psk-file, of chkpt send: its N' },
      ...migrationOptions,
      keyOption,
      ...targetKeyOptions,
      ...linkOptions,
    ],
    common: ['threads', 'json', 'quiet', 'insecure'],
    notes: [
      'ADDRESS is tcp://HOST:PORT, tls://HOST:PORT or unix:PATH; port 0 takes a free one, which is told on standard error.',
      'The same bytes are kept that chkpt save would have written here. {uuid} in STORE is the UUID of the checkpoint.',
      'Nothing is visible at STORE before all of it is verified and kept; then the sender is told, whose chkpt save ends with that.',
      'Off this machine: tls: with certificates and --tls-peer, or --psk-file, or --insecure.',
    ],
    examples: [
      ['chkpt receive unix:/run/vm.sock vm.chkpt', 'from a process of this machine'],
      ['chkpt receive tcp://0.0.0.0:7000 --memory ram.img --psk-file key', 'a RAM image of chkpt send'],
      [
        'chkpt receive tls://0.0.0.0:7000 dir:/backup/{uuid} --psk-file key',
        'from another one, with a one-time key',
      ],
    ],
    isInterruptible: true,
    load: () => import('./commands/receive.ts'),
  },
  {
    name: 'send',
    summary: 'move the running guest of a QEMU, or RAM images, to a chkpt receive elsewhere',
    usages: [
      '--qemu SOCKET ADDRESS [--streams N] [--downtime MS] [--bandwidth RATE] [OPTION]…',
      '--qemu SOCKET ADDRESS --plan [--window MS] [OPTION]…',
      '--memory RAMFILE[@BASE]… [--state CONTEXT.TAG=FILE]… [--id ID] ADDRESS [OPTION]…',
    ],
    operands: ['ADDRESS'],
    options: [
      {
        name: 'qemu',
        value: 'SOCKET',
        isFile: true,
        summary: 'the QEMU whose guest is moved, by its QMP socket',
      },
      {
        name: 'memory',
        value: 'RAMFILE[@BASE]',
        isFile: true,
        isRepeatable: true,
        summary: 'a RAM image that is sent, and where it lies in guest memory; default at 0',
      },
      {
        name: 'state',
        value: 'CONTEXT.TAG=FILE',
        isFile: true,
        isRepeatable: true,
        summary: 'with --memory: send the content of FILE, read at the end, as the value TAG of CONTEXT',
      },
      {
        name: 'id',
        value: 'ID',
        summary: 'with --memory: identity of the machine; default: name of the first RAM image',
      },
      { name: 'streams', value: 'N', summary: 'connections for pages, 1 to 16; default 1' },
      {
        name: 'downtime',
        value: 'MS',
        summary: 'how long the guest may stand still, milliseconds; default 300',
      },
      { name: 'bandwidth', value: 'RATE', summary: 'most bytes per second, with K, M or G (powers of 1024)' },
      {
        name: 'delta-cache',
        value: 'SIZE',
        summary:
          'pages kept as they were sent, to send their differences, with K, M or G; default 64M, 0 for none',
      },
      { name: 'limit', value: 'SECONDS', summary: 'how long it may take until it converges; default 600' },
      {
        name: 'force',
        summary:
          'a guest that does not converge until then stands still as long as it takes; default: it stays',
      },
      {
        name: 'plan',
        summary:
          'change nothing: measure link, writes and encoding, and say what the other options would come to',
      },
      {
        name: 'window',
        value: 'MS',
        summary: 'with --plan: how long the guest is watched, 50 to 60000 milliseconds; default 1000',
      },
      ...migrationOptions,
      ...linkOptions,
    ],
    common: ['threads', 'codec', 'json', 'quiet', 'insecure'],
    notes: [
      'With --plan the exit code is 0 also when the guest would stay: the answer says so. The destination must be waiting: it is measured how fast it gets bytes.',
      'Until the destination has everything the guest can stay: Ctrl-C cancels, and it runs on here.',
      'A RAM image may be written meanwhile: what differs is sent again. Whoever writes must stand still for the last round, or the image stays (CHKPT_VM_RUNNING).',
      'Exit code 4: the destination was told to run it and has not answered. Do not continue the guest here before that host is known to be down.',
    ],
    examples: [
      ['chkpt send --qemu vm.qmp tls://host:7000 --psk-file key', 'to a host with the same one-time key'],
      ['chkpt send --memory ram.img tcp://host:7000 --psk-file key', 'a RAM image'],
      ['chkpt send --qemu vm.qmp tls://host:7000 --psk-file key --plan', 'how long would that take?'],
    ],
    isInterruptible: true,
    load: () => import('./commands/send.ts'),
  },
  {
    name: 'resume',
    summary: 'go on with a migration whose chkpt send was ended: tell the destination, or ask it',
    usages: ['ID [--at ADDRESS] [--journal FOLDER] [OPTION]…'],
    operands: ['ID'],
    options: [
      { name: 'at', value: 'ADDRESS', summary: 'where the destination is now; default: where it was' },
      journalOption,
      ...linkOptions,
    ],
    common: ['json', 'quiet', 'insecure'],
    notes: [
      'ID is the UUID that chkpt migrations shows. A destination that holds the whole guest is told to run it.',
      'Exit code 0: the guest moved, or had stayed; 1: it ended with chkpt send, and nobody has it; 4: the destination does not answer, or does not know.',
    ],
    examples: [['chkpt resume 3d0a7a0e-5a3f-4e0c-9df1-6f3f5c0e8a11', 'where chkpt send ran']],
    isInterruptible: true,
    load: () => import('./commands/resume.ts'),
  },
  {
    name: 'migrations',
    summary: 'which migrations this host remembers, and what is to be done about them',
    usages: ['[--journal FOLDER] [--prune [--older HOURS] | --forget ID]'],
    operands: [],
    options: [
      journalOption,
      { name: 'prune', summary: 'remove the records of those that are over' },
      { name: 'older', value: 'HOURS', summary: 'with --prune: that were over so long ago; default 24' },
      {
        name: 'forget',
        value: 'ID',
        summary: 'remove the records of one, whatever they say: you know what became of its guest',
      },
    ],
    common: ['json', 'quiet'],
    notes: [
      'TASK: wait (a process has it in hand), resume (chkpt resume ID), receive (the source may ask: run chkpt receive here again), operator (the guest was about to run here: see where it is), none (it is over).',
    ],
    examples: [
      ['chkpt migrations', 'after a crash'],
      ['chkpt migrations --prune', 'now and then'],
    ],
    isInterruptible: false,
    load: () => import('./commands/migrations.ts'),
  },
];
