/** Options of the commands that work over connections, for the table in command-table.ts. */
import type { OptionSpec } from './command-table.ts';

/** Of every command that sends or receives a checkpoint. */
export const linkOptions: readonly OptionSpec[] = [
  { name: 'tls-key', value: 'FILE', isFile: true, summary: 'with tls: the private key, PEM' },
  { name: 'tls-cert', value: 'FILE', isFile: true, summary: 'with tls: the certificate of this side, PEM' },
  {
    name: 'tls-ca',
    value: 'FILE',
    isFile: true,
    summary: 'with tls: who has signed that of the other side, PEM',
  },
  {
    name: 'tls-peer',
    value: 'FINGERPRINT',
    isRepeatable: true,
    summary: 'with tls: SHA-256 of a certificate that may connect; who listens must name one',
  },
  {
    name: 'psk-file',
    value: 'FILE',
    isFile: true,
    summary: 'a one-time key that both sides have: 32 bytes, or 64 hexadecimal digits',
  },
];
