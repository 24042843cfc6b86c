/** The state of a machine without its memory, as contexts and back: what goes over a connection that is no stream of chkpt's. */
import { type Apply, loadHeader, readStates, saveStates } from '../../checkpoint/machine-states.ts';
import type { SkipPart, VirtualMachine } from '../../checkpoint/virtual-machine.ts';
import { checkHeader, type IgnoredMismatch } from '../../checkpoint/vm-header.ts';
import { planOf } from '../../checkpoint/vm-plan.ts';
import { openCheckpoint } from '../../context/checkpoint.ts';
import { CheckpointError } from '../../errors/index.ts';
import type { ForeignContent, ForeignFormat } from '../../foreign/foreign-format.ts';
import { ForeignStore } from '../../foreign/foreign-store.ts';
import { checkpointDigest } from '../../memory/digest.ts';

const url = 'palacios-state:';

/** Keeps what is saved, and gives what it has. */
class ContentFormat implements ForeignFormat {
  content: ForeignContent | undefined;

  async createWriter(): ReturnType<ForeignFormat['createWriter']> {
    return {
      memory: async () => {
        throw new TypeError('memory goes by another way');
      },
      commit: async (content) => {
        this.content = content;
        return 0;
      },
      abort: async () => undefined,
    };
  }

  async openReading(): ReturnType<ForeignFormat['openReading']> {
    const { content } = this;
    if (content === undefined) throw new CheckpointError('CHKPT_NOT_FOUND', 'nothing was saved');
    return {
      ...content,
      integrity: 'detect',
      readMemory: async () => undefined,
      close: async () => undefined,
    };
  }
}

export interface ContentOptions {
  /** Beside memory. */
  readonly skip: readonly SkipPart[];
  readonly signal: AbortSignal | undefined;
}

/** What a save writes of a machine that stands still. */
export async function contentOfMachine(vm: VirtualMachine, options: ContentOptions): Promise<ForeignContent> {
  const { skip, signal } = options;
  const format = new ContentFormat();
  const store = new ForeignStore(url, format);
  const checkpoint = await openCheckpoint(store, { mode: 'save', digest: await checkpointDigest(), signal });
  try {
    await saveStates(vm, planOf(vm, ['memory', ...skip]), checkpoint, { skip, parentUrl: undefined });
    await checkpoint.commit();
  } catch (error) {
    await checkpoint.abort();
    throw error;
  }
  if (format.content === undefined) throw new TypeError('the save has saved nothing');
  return format.content;
}

/**
 * Reads and checks the state that another machine had; what it returns sets it. Nothing of the machine is touched. Throws errors of kind
 * `mismatch` and `damaged`.
 */
export async function readContent(
  vm: VirtualMachine,
  content: ForeignContent,
  { skip, signal, ignore }: ContentOptions & { readonly ignore: readonly IgnoredMismatch[] },
): Promise<Apply[]> {
  const format = new ContentFormat();
  format.content = { ...content, memory: undefined };
  const store = new ForeignStore(url, format);
  const checkpoint = await openCheckpoint(store, { mode: 'load', digest: await checkpointDigest(), signal });
  try {
    const without: SkipPart[] = ['memory', ...skip];
    checkHeader(await loadHeader(checkpoint), vm, without, ignore);
    const apply = await readStates(checkpoint, planOf(vm, without));
    await checkpoint.finish();
    return apply;
  } finally {
    await checkpoint.close();
  }
}
