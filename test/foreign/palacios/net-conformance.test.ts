/** `palacios+net:` from chkpt to chkpt over real sockets: what every foreign store promises, and what the ends of a stream owe each other. */
import { openPalaciosStore } from '../../../src/index.ts';
import { describeForeignStream } from '../../conformance/foreign-stream.suite.ts';

const blockBytes = 1 << 20;
const regions = [
  { base: 0n, bytes: 1n << 20n },
  { base: 3n << 20n, bytes: 3n << 16n },
];

await describeForeignStream(
  'palacios+net:',
  {
    types: true,
    integrity: 'detect',
    regions,
    receiverGone: ['CHKPT_LINK_LOST', 'CHKPT_UNACKNOWLEDGED'],
    senderGone: ['CHKPT_LINK_LOST'],
  },
  {
    listen: (onListening) => openPalaciosStore('palacios+net:a:127.0.0.1:0', { blockBytes, onListening }),
    connect: (url) => openPalaciosStore(url.replace(':a:', ':c:'), { blockBytes }),
  },
);
