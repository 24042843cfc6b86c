/** Options of commands that open checkpoints which may be encrypted; part of the table in command-table.ts. */
import type { OptionSpec } from './command-table.ts';

export const keyOption: OptionSpec = {
  name: 'key-file',
  value: 'FILE',
  isFile: true,
  summary:
    'encrypt and decrypt with the key in FILE, 32 bytes or 64 hexadecimal digits; default: CHKPT_KEY_FILE, or the digits in CHKPT_KEY',
};

/** Of what makes a checkpoint out of another one. */
export const targetKeyOptions: readonly OptionSpec[] = [
  {
    name: 'to-key-file',
    value: 'FILE',
    isFile: true,
    summary: 'the key of the new checkpoint; default: that of the old one',
  },
  { name: 'to-plain', summary: 'the new checkpoint is not encrypted' },
];
