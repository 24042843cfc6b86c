/** Values of `--state` as the devices of a machine that is made of files: one device for each context, in the order of their names. */
import { CheckpointError, type Device, openState, statePart, type TypedTags } from '../index.ts';

/** A RAM image does not say for which processor it is. */
export const noCpu = { vendor: '', model: '' } as const;
export type CpuFacts = { readonly vendor: string; readonly model: string };

const deviceClass = 'state-files';

/** Tags with their bytes. */
export function deviceOf(
  context: string,
  values: {
    readonly get: () => ReadonlyMap<string, Uint8Array>;
    readonly set: (values: ReadonlyMap<string, Uint8Array>) => void;
  },
): Device {
  const part = statePart<TypedTags>({
    state: openState(),
    get: () => new Map(Array.from(values.get(), ([tag, value]) => [tag, { type: 'bytes', value }])),
    set: (tags) => values.set(new Map(Array.from(tags, ([tag, { value }]) => [tag, bytesOf(value)]))),
  });
  return { id: context, deviceClass, contexts: [{ name: context, parts: [part] }] };
}

function bytesOf(value: unknown): Uint8Array {
  if (value instanceof Uint8Array) return value;
  throw new CheckpointError('CHKPT_TAG_TYPE', 'a value of --state is not bytes');
}
