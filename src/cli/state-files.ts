/** Reads the files of `--state`, within the bound that the format has on all values together. */
import { createReadStream } from 'node:fs';
import { addAbortSignal, type Readable } from 'node:stream';
import { CheckpointError, fromSystemError } from '../errors/index.ts';
import { valueBytesMax } from '../limits.ts';
import { type StateInput, standardStream } from './state-argument.ts';

/** The values of one context, in the order given. */
export interface StateGroup {
  readonly context: string;
  readonly values: readonly (readonly [tag: string, data: Uint8Array])[];
}

/** Contexts in the order in which they are first named. Throws `CHKPT_VALUE_RANGE`, `CHKPT_ABORTED`, `CHKPT_NOT_FOUND`, … */
export async function readStates(states: readonly StateInput[], signal: AbortSignal): Promise<StateGroup[]> {
  const groups = new Map<string, [tag: string, data: Uint8Array][]>();
  let restBytes = valueBytesMax;
  for (const state of states) {
    const data = await readState(state, restBytes, signal);
    restBytes -= data.length;
    const group = groups.get(state.context) ?? [];
    group.push([state.tag, data]);
    groups.set(state.context, group);
  }
  return [...groups].map(([context, values]) => ({ context, values }));
}

async function readState(
  { context, tag, path }: StateInput,
  bytesMax: number,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const details = { context, tag, path: path === standardStream ? 'standard input' : path };
  const pieces: Uint8Array[] = [];
  let byteCount = 0;
  try {
    signal.throwIfAborted();
    const source: Readable = path === standardStream ? process.stdin : createReadStream(path);
    for await (const piece of addAbortSignal(signal, source) as AsyncIterable<Uint8Array>) {
      byteCount += piece.length;
      if (byteCount > bytesMax) {
        throw new CheckpointError('CHKPT_VALUE_RANGE', 'the values together exceed 256 MiB', { details });
      }
      pieces.push(piece);
    }
  } catch (error) {
    throw signal.aborted ? signal.reason : fromSystemError(error, 'cannot read the state', details);
  }
  return Buffer.concat(pieces);
}
