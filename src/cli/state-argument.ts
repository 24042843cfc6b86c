/** `CONTEXT.TAG=FILE`: a value and the file that it comes from or goes to. Pure text; nothing is opened here. */
import { encodeName } from '../format/names.ts';
import { usageError } from './usage-error.ts';

/** Stands for standard input or output. */
export const standardStream = '-';

export interface StateArgument {
  /** What stands before the =. */
  readonly name: string;
  readonly path: string;
}

/** A value by its place. */
export interface StatePlace {
  readonly context: string;
  readonly tag: string;
}

/** Contexts that `chkpt save` writes itself. */
const ownContexts: ReadonlySet<string> = new Set(['header', 'devices', 'memory']);

/** Throws `CHKPT_USAGE`. */
export function parseStateArguments(texts: readonly string[]): StateArgument[] {
  const states = texts.map((text) => {
    const equals = text.indexOf('=');
    const [name, path] = [text.slice(0, Math.max(equals, 0)), text.slice(equals + 1)];
    if (name === '' || path === '') throw usageError(`--state ${text}: CONTEXT.TAG=FILE is expected`);
    if (splitState(name).length === 0) {
      throw usageError(`--state ${text}: ${name} is not CONTEXT.TAG, a context, a dot and a tag`);
    }
    return { name, path };
  });
  if (states.filter(({ path }) => path === standardStream).length > 1) {
    throw usageError(`--state …=${standardStream}: the standard stream serves one value only`);
  }
  return states;
}

/** Every way to read a name as context and tag, the one with the shortest context first. */
export function splitState(name: string): StatePlace[] {
  const places: StatePlace[] = [];
  for (
    let dot = name.indexOf('.', 1);
    dot !== -1 && dot < name.length - 1;
    dot = name.indexOf('.', dot + 1)
  ) {
    places.push({ context: name.slice(0, dot), tag: name.slice(dot + 1) });
  }
  return places;
}

/** A value to be saved. */
export interface StateInput extends StatePlace {
  readonly path: string;
}

/** Where `save` puts the values: the context ends at the first dot. Throws `CHKPT_USAGE`. */
export function placeStates(states: readonly StateArgument[]): StateInput[] {
  const seen = new Set<string>();
  return states.map(({ name, path }) => {
    const place = splitState(name)[0] ?? { context: name, tag: '' };
    if (ownContexts.has(place.context)) {
      throw usageError(`--state ${name}=${path}: chkpt writes the context ${place.context} itself`);
    }
    if (seen.has(name)) throw usageError(`--state ${name}=${path}: the tag is given twice`);
    seen.add(name);
    checkName(place.context, name);
    checkName(place.tag, name);
    return { ...place, path };
  });
}

/** Values of both ends of a migration: files, since what is sent again is read again. Throws `CHKPT_USAGE`. */
export function fileStatesOf(texts: readonly string[]): StateInput[] {
  const states = placeStates(parseStateArguments(texts));
  const standard = states.find(({ path }) => path === standardStream);
  if (standard === undefined) return states;
  throw usageError(`--state ${standard.context}.${standard.tag}=${standardStream}: a file is expected`);
}

function checkName(part: string, name: string): void {
  try {
    encodeName(part);
  } catch (error) {
    throw usageError(`--state ${name}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
