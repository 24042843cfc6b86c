/** The values that a load is asked for: found in the checkpoint when all of it was verified, and written to their files. */
import { CheckpointError, decodeSkip, type ErrorCode, type LoadCheckpoint, type VmHeader } from '../index.ts';
import { type Output, OutputClosed } from './output.ts';
import type { OutputFile, OutputFiles } from './output-files.ts';
import { type StateArgument, type StatePlace, splitState, standardStream } from './state-argument.ts';

export interface LoadedValue extends StatePlace {
  readonly path: string;
  /** As they stand in the checkpoint. */
  readonly data: Uint8Array;
}

/**
 * Names are split at their first dot; when there is no such value, at the next one, so that contexts with dots in their names
 * can be loaded from too. Throws `CHKPT_NO_CONTEXT`, `CHKPT_NO_TAG`, `CHKPT_SKIPPED`.
 */
export async function findValues(
  checkpoint: LoadCheckpoint,
  states: readonly StateArgument[],
  header: VmHeader,
  store: string,
): Promise<LoadedValue[]> {
  const reader = new ValueReader(checkpoint, states);
  const values: LoadedValue[] = [];
  for (const { name, path } of states) {
    const place = await reader.find(name);
    if (place === undefined) throw await missing(name, reader, store, header);
    values.push({ ...place, path });
  }
  return values;
}

/** Makes the files of the values, by path, before anything long begins: most of what can go wrong with them goes wrong here. */
export async function createValueFiles(
  states: readonly StateArgument[],
  files: OutputFiles,
): Promise<ReadonlyMap<string, OutputFile>> {
  const created = new Map<string, OutputFile>();
  for (const { path } of states) {
    if (path !== standardStream) created.set(path, await files.create(path));
  }
  return created;
}

/** Writes the values; standard output comes last, when it is known that the files have taken theirs. */
export async function writeValues(
  values: readonly LoadedValue[],
  created: ReadonlyMap<string, OutputFile>,
  files: OutputFiles,
  output: Output,
): Promise<void> {
  for (const { path, data } of values) {
    const file = created.get(path);
    if (file !== undefined) await files.write(file, data);
  }
  const standard = values.find(({ path }) => path === standardStream);
  if (standard === undefined) return;
  try {
    await output.write(standard.data);
  } catch (error) {
    if (!(error instanceof OutputClosed)) throw error;
    throw new CheckpointError('CHKPT_IO', error.message, { cause: error });
  }
}

/** A context can be opened once, so all that is wanted of it is read at once. */
class ValueReader {
  readonly #checkpoint: LoadCheckpoint;
  readonly #wanted: readonly StatePlace[];
  /** Values by tag; `undefined` when there is no such context. */
  readonly #contexts = new Map<string, ReadonlyMap<string, Uint8Array> | undefined>();

  constructor(checkpoint: LoadCheckpoint, states: readonly StateArgument[]) {
    this.#checkpoint = checkpoint;
    this.#wanted = states.flatMap(({ name }) => splitState(name));
  }

  async find(name: string): Promise<Omit<LoadedValue, 'path'> | undefined> {
    for (const { context, tag } of splitState(name)) {
      const data = (await this.context(context))?.get(tag);
      if (data !== undefined) return { context, tag, data };
    }
    return undefined;
  }

  async context(name: string): Promise<ReadonlyMap<string, Uint8Array> | undefined> {
    if (!this.#contexts.has(name)) this.#contexts.set(name, await this.#read(name));
    return this.#contexts.get(name);
  }

  async #read(name: string): Promise<ReadonlyMap<string, Uint8Array> | undefined> {
    const wanted = new Set(this.#wanted.filter(({ context }) => context === name).map(({ tag }) => tag));
    const context = await this.#checkpoint.openContext(name).catch((error: unknown) => {
      if (error instanceof CheckpointError && error.code === 'CHKPT_NO_CONTEXT') return undefined;
      throw error;
    });
    if (context === undefined) return undefined;
    const values = new Map<string, Uint8Array>();
    for (const { name: tag } of context.tags) {
      if (wanted.has(tag)) values.set(tag, await context.loadBytes(tag));
    }
    await context.close();
    return values;
  }
}

async function missing(
  name: string,
  reader: ValueReader,
  store: string,
  header: VmHeader,
): Promise<CheckpointError> {
  const [place = { context: name, tag: '' }] = splitState(name);
  const error = (code: ErrorCode, what: string): CheckpointError =>
    new CheckpointError(code, what, { details: { store, ...place } });
  if ((await reader.context(place.context)) !== undefined) return error('CHKPT_NO_TAG', 'no such tag');
  const skipped = skippedPart(name, header);
  if (skipped === undefined) return error('CHKPT_NO_CONTEXT', 'no such context');
  return error('CHKPT_SKIPPED', `no such context: ${skipped} were skipped when this checkpoint was saved`);
}

/** The part that a value of this name would have been saved with, when that part was skipped. */
function skippedPart(name: string, header: VmHeader): string | undefined {
  const skipped = decodeSkip(header.options.skip);
  const core = /^core[0-9]+\.(arch\.)?/.exec(name);
  if (core === null) return skipped.includes('devices') ? 'devices' : undefined;
  if (skipped.includes('cores')) return 'cores';
  return core[1] !== undefined && skipped.includes('archdep')
    ? 'architecture-dependent parts of cores'
    : undefined;
}
