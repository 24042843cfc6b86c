/**
 * `gem5:path`: a checkpoint that gem5 24 restores memory from, and that chkpt loads whole. docs/gem5.md.
 *
 *     gem5:/ckpt/cpt.0                   machine called `system`
 *     gem5:/ckpt/cpt.0?system=board      machine of gem5's standard library
 *     gem5:/ckpt/cpt.0?bases=2147483648  where the memory of a checkpoint of gem5 lies, where it is no PC's
 *     gem5:/ckpt/cpt.1?skeleton=/ckpt/cpt.0   into the machine that gem5 took the other checkpoint of
 */
import { dirname } from 'node:path';
import { addressMax } from '../../limits.ts';
import { hostEnvironment, type StoreEnvironment, type StoreFactory } from '../../store/index.ts';
import { directoryPath, urlError } from '../../store/url.ts';
import type { ForeignFormat, ForeignReading, ForeignWriter } from '../foreign-format.ts';
import { ForeignStore } from '../foreign-store.ts';
import { BareDocument } from './document.ts';
import { Gem5Folder } from './folder.ts';
import { textName } from './names.ts';
import { type Gem5ReadOptions, openGem5Reading, readText } from './reader.ts';
import { removeGem5 } from './remove.ts';
import { SkeletonDocument, type SkeletonReport } from './skeleton.ts';
import { openGem5Writer } from './writer.ts';

export interface Gem5Options extends Partial<Gem5ReadOptions> {
  /** Folder of a checkpoint that gem5 took of the target machine: saves put the guest into it. */
  readonly skeleton?: string | undefined;
  /** Told, after a save with a skeleton, what was set, kept and lost. */
  readonly onReport?: ((report: SkeletonReport) => void) | undefined;
  readonly environment?: StoreEnvironment | undefined;
}

const defaultSystem = 'system';
const systemPattern = /^[A-Za-z_][A-Za-z0-9_.]{0,127}$/;

/** The factory of `gem5:`, over the host's files unless told otherwise. */
export function gem5StoreFactory(options: Gem5Options = {}): StoreFactory {
  return (rest, url) => {
    const question = rest.lastIndexOf('?');
    const asked = question < 0 ? {} : parseQuery(rest.slice(question + 1), url);
    const path = directoryPath(question < 0 ? rest : rest.slice(0, question), url);
    // gem5 puts the tick in its place.
    if (path.includes('%'))
      throw urlError('gem5 reads a % in the name of a folder as a place for the tick', url);
    const format = new Gem5Format({ ...options, ...asked }, path, url);
    return new ForeignStore(url, format);
  };
}

export class Gem5Format implements ForeignFormat {
  readonly scratchFolder: string | undefined;
  readonly #options: Gem5Options;
  readonly #folder: Gem5Folder;

  constructor(options: Gem5Options, path: string, url: string) {
    this.#options = options;
    this.scratchFolder = dirname(path);
    this.#folder = new Gem5Folder(options.environment ?? hostEnvironment, path, url);
  }

  async createWriter({
    uuid,
    signal,
  }: {
    uuid: string;
    signal?: AbortSignal | undefined;
  }): Promise<ForeignWriter> {
    const { system, onReport } = this.#options;
    const skeleton = await this.#readSkeleton();
    const document = skeleton ?? new BareDocument(system ?? defaultSystem);
    const onSaved = (): void => {
      if (skeleton?.report !== undefined) onReport?.(skeleton.report);
    };
    return await openGem5Writer({ folder: this.#folder, document, uuid, signal, onSaved });
  }

  async #readSkeleton(): Promise<SkeletonDocument | undefined> {
    const { skeleton, system, bases, environment = hostEnvironment } = this.#options;
    if (skeleton === undefined) return undefined;
    const folder = new Gem5Folder(environment, skeleton, this.#folder.store);
    return new SkeletonDocument(await readText(folder), { system, bases }, folder.details(textName));
  }

  openReading({ signal }: { signal?: AbortSignal | undefined }): Promise<ForeignReading> {
    const { system, bases } = this.#options;
    return openGem5Reading(this.#folder, { system, bases }, signal);
  }

  remove(): Promise<void> {
    return removeGem5(this.#folder);
  }
}

function parseQuery(query: string, url: string): Gem5Options {
  let options: Gem5Options = {};
  for (const [key, value] of new URLSearchParams(query)) {
    if (key === 'system') {
      if (!systemPattern.test(value)) throw urlError(`${value} is no name of a machine`, url);
      options = { ...options, system: value };
    } else if (key === 'bases') {
      options = { ...options, bases: value.split(',').map((text) => toAddress(text, url)) };
    } else if (key === 'skeleton') {
      options = { ...options, skeleton: directoryPath(value, url) };
    } else {
      throw urlError(`gem5: has no option ${key}, only system, bases and skeleton`, url);
    }
  }
  return options;
}

function toAddress(text: string, url: string): bigint {
  if (!/^(?:[0-9]{1,20}|0x[0-9a-fA-F]{1,16})$/.test(text) || BigInt(text) > addressMax) {
    throw urlError(`${text} is no address`, url);
  }
  return BigInt(text);
}
