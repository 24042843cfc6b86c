/** The chain of a checkpoint, as `chkpt info` tells it: itself, its parents, and what is wrong with the one that ends it. */
import { type ChainMember, type ChainOptions, followChain } from '../checkpoint/parent.ts';
import type { CheckpointError, ErrorCode } from '../index.ts';
import { printable } from './printable.ts';
import { textTable } from './text-table.ts';
import { formatBytes, timeText } from './units.ts';

export interface ChainFacts {
  /** 0 is the checkpoint itself. */
  readonly depth: number;
  readonly uuid: string;
  readonly root: string;
  /** `null`, as everything below, of a parent that was not found, is another one or is damaged. */
  readonly store: string | null;
  /** A u64, decimal. */
  readonly epoch: string | null;
  /** ISO 8601; also `null` when not told. */
  readonly created: string | null;
  readonly checkpointBytes: number | null;
  /** Pages that are not its parent's. */
  readonly ownPages: number | null;
  readonly error: { readonly code: ErrorCode; readonly message: string } | null;
}

/** Throws `CHKPT_ABORTED`. */
export async function chainFactsOf(newest: ChainMember, options: ChainOptions): Promise<ChainFacts[]> {
  const { ancestors, failure } = await followChain(newest, options);
  const members = [newest, ...ancestors];
  const facts = members.map(factsOf);
  const wanted = members.at(-1)?.parent;
  return failure === undefined || wanted === undefined
    ? facts
    : [...facts, brokenFacts(wanted, failure, members)];
}

function factsOf(
  { store, uuid, root, epoch, createdMs, bytes, ownPages }: ChainMember,
  depth: number,
): ChainFacts {
  return {
    depth,
    uuid,
    root,
    store: store.url,
    epoch: String(epoch),
    created: timeText(createdMs),
    checkpointBytes: bytes,
    ownPages,
    error: null,
  };
}

function brokenFacts(
  { uuid, root }: { readonly uuid: string; readonly root: string },
  { code, message }: CheckpointError,
  { length: depth }: readonly ChainMember[],
): ChainFacts {
  const unknown = { store: null, epoch: null, created: null, checkpointBytes: null, ownPages: null };
  return { depth, uuid, root, ...unknown, error: { code, message } };
}

/** One line a member; nothing for a checkpoint that stands alone. */
export function chainText(chain: readonly ChainFacts[]): string {
  if (chain.length < 2) return '';
  const rows = chain.map(({ depth, uuid, epoch, created, checkpointBytes, ownPages, store, error }) => [
    String(depth),
    uuid,
    epoch ?? '-',
    created ?? '-',
    checkpointBytes === null ? '-' : formatBytes(checkpointBytes),
    ownPages === null ? '-' : String(ownPages),
    printable(error === null ? (store ?? '-') : `${error.code}: ${error.message}`),
  ]);
  const columns = [
    { title: 'DEPTH', align: 'right' },
    { title: 'CHAIN' },
    { title: 'EPOCH', align: 'right' },
    { title: 'CREATED' },
    { title: 'BYTES', align: 'right' },
    { title: 'OWN PAGES', align: 'right' },
    { title: 'STORE' },
  ] as const;
  return `\n${textTable(columns, rows)}`;
}
