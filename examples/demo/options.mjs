/** The command line of the demo. */
import { freemem } from 'node:os';
import { parseArgs } from 'node:util';

export const help = `usage: npm run demo -- [--gib N] [--store URL] [--keep]

  --gib N      memory of the guest, GiB, 0.0625 to 256 (default 3, or what this computer has room for)
  --store URL  save there, and leave the checkpoint there: file:PATH, dir:PATH, mem:NAME
               (default: a file in a temporary folder that is removed at the end)
  --keep       do not remove the temporary folder`;

const gibibyte = 1024 ** 3;
const alignment = 2 * 1024 * 1024;
const addressAbove = 4 * gibibyte;

/** Throws when the command line is not valid. */
export function readOptions() {
  const { values } = parseArgs({
    options: {
      gib: { type: 'string' },
      store: { type: 'string' },
      keep: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  const gib = values.gib === undefined ? undefined : Number(values.gib);
  if (gib !== undefined && !(gib >= 0.0625 && gib <= 256)) throw new Error('--gib takes 0.0625 to 256');
  return { ...values, gib, regions: regionsOf((gib ?? defaultGib()) * gibibyte) };
}

/** Two machines of it fit, with a quarter of memory to spare. */
function defaultGib() {
  const available = process.availableMemory?.() ?? freemem();
  const fitting = Math.floor((0.75 * available) / 2 / gibibyte / 0.25) * 0.25;
  if (fitting < 0.25)
    throw new Error('this computer has too little free memory for the demo: try --gib 0.0625');
  return Math.min(3, fitting);
}

/** As in a PC: two thirds of memory below 4 GiB (but not more than 3 GiB), the rest above. */
function regionsOf(bytes) {
  const total = Math.floor(bytes / alignment) * alignment;
  const below = Math.min(3 * gibibyte, Math.floor((2 * total) / 3 / alignment) * alignment);
  return [
    { base: 0, bytes: below },
    { base: addressAbove, bytes: total - below },
  ];
}
