/** The commands that work over connections; part of the table in command-table.ts. */
import type { CommandSpec } from './command-table.ts';
import { linkOptions } from './link-options.ts';

export const linkCommands: readonly CommandSpec[] = [
  {
    name: 'receive',
    summary: 'take a checkpoint that another process sends, and keep it',
    usages: ['ADDRESS STORE [--count N] [OPTION]…'],
    operands: ['ADDRESS', 'STORE'],
    options: [
      { name: 'count', value: 'N', summary: 'take N checkpoints, one after the other; default 1' },
      { name: 'once', summary: 'take one checkpoint: the default' },
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
      [
        'chkpt receive tls://0.0.0.0:7000 dir:/backup/{uuid} --psk-file key',
        'from another one, with a one-time key',
      ],
    ],
    isInterruptible: true,
    load: () => import('./commands/receive.ts'),
  },
];
