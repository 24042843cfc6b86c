/**
 * Chains: an incremental checkpoint names its parent by UUID and root digest, and says in its `header` context where the
 * parent lay when it was saved. Here a chain is looked at without reading memory: what the members are, and that they belong
 * together.
 */
import { realpathSync } from 'node:fs';
import { basename, dirname, relative } from 'node:path';
import type { MemoryRegion } from '../context/memory-frames.ts';
import { defineState, string } from '../context/state.ts';
import { CheckpointError, type ErrorCode } from '../errors/index.ts';
import { chainDepthMax } from '../limits.ts';
import { describeRegions } from '../memory/index.ts';
import { type Store, TeeStore } from '../store/index.ts';
import { isSamePlace, parsePlace } from '../store/s3/place.ts';
import { checkpointFolder, filePath, parseStoreUrl } from '../store/url.ts';
import { toStore, toStoreBeside } from './open.ts';
import { decodeScrub, type ScrubbedRange } from './scrub.ts';
import { inspectCheckpoint, type OpenInspection } from './verify.ts';
import { headerContext } from './vm-header.ts';

/** Tags of the `header` context: where the parent lies. */
export const parentState = defineState({ parent: { url: string } }, { strict: false });
/** Tags of the `header` context: the checkpoint in whose place, with the same content, this one stands. */
export const replacesState = defineState({ replaces: { uuid: string, root: string } }, { strict: false });

/** What names a checkpoint and its content. */
export interface CheckpointName {
  /** Text form. */
  readonly uuid: string;
  /** Root digest, hexadecimal. */
  readonly root: string;
}

/** A checkpoint of a chain, as far as it is known without reading its memory. */
export interface ChainMember extends CheckpointName {
  readonly store: Store;
  readonly epoch: bigint;
  /** Bytes of the checkpoint. */
  readonly bytes: number;
  readonly createdMs: number;
  /** Pages of its memory that are not its parent's. */
  readonly ownPages: number;
  readonly regions: readonly MemoryRegion[];
  /** What its memory does not have of the machine's. */
  readonly scrubbed: readonly ScrubbedRange[];
  readonly parent: (CheckpointName & { readonly url: string | undefined }) | undefined;
  /** The checkpoint it stands for. */
  readonly replaces: CheckpointName | undefined;
}

export interface ChainOptions {
  /** Where parents are, if not where they were when their children were saved. Looked through in this order. */
  readonly parents?: readonly (string | Store)[] | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Looks at one checkpoint. Throws what `inspectCheckpoint` throws. */
export async function describeMember(
  source: string | Store,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<ChainMember> {
  const store = toStore(source);
  const inspection = await inspectCheckpoint(store, { signal: options.signal });
  try {
    return await memberOf(store, inspection);
  } finally {
    await inspection.close();
  }
}

/** The same of a checkpoint in `store` that is being looked at. */
export async function memberOf(store: Store, inspection: OpenInspection): Promise<ChainMember> {
  const { header, root, bytes, regions, counts } = inspection;
  const url = header.parent === undefined ? undefined : await stringTag(inspection, 'parent.url');
  const uuid = await stringTag(inspection, 'replaces.uuid');
  const replacedRoot = await stringTag(inspection, 'replaces.root');
  return {
    store,
    uuid: header.uuid,
    root,
    epoch: header.epoch,
    bytes,
    createdMs: header.createdMs,
    ownPages: counts.pages - counts.parentPages,
    regions: regions.map((region) => ({ base: region.base, bytes: region.bytes })),
    scrubbed: await scrubbedIn(inspection, store.url),
    parent: header.parent === undefined ? undefined : { ...header.parent, url },
    replaces: uuid === undefined || replacedRoot === undefined ? undefined : { uuid, root: replacedRoot },
  };
}

async function scrubbedIn(inspection: OpenInspection, store: string): Promise<ScrubbedRange[]> {
  const tags = inspection.contexts.find(({ name }) => name === headerContext)?.tags ?? [];
  if (!tags.some(({ name }) => name === 'scrub.base')) return [];
  const [base, bytes, how] = [
    (await inspection.readTag(headerContext, 'scrub.base')).value,
    (await inspection.readTag(headerContext, 'scrub.bytes')).value,
    (await inspection.readTag(headerContext, 'scrub.how')).value,
  ];
  if (!(base instanceof BigUint64Array && bytes instanceof BigUint64Array && how instanceof Uint8Array)) {
    throw new CheckpointError('CHKPT_FORMAT', 'the record of scrubbed memory has other types', {
      details: { store, context: headerContext },
    });
  }
  return decodeScrub({ scrub: { base, bytes, how } }, inspection.regions, store);
}

async function stringTag(inspection: OpenInspection, tag: string): Promise<string | undefined> {
  const context = inspection.contexts.find(({ name }) => name === headerContext);
  if (!context?.tags.some(({ name, type }) => name === tag && type === 'string')) return undefined;
  const { value } = await inspection.readTag(headerContext, tag);
  return typeof value === 'string' ? value : undefined;
}

/**
 * The ancestors of `newest`, its parent first. Throws `CHKPT_PARENT_MISSING`, `CHKPT_PARENT_FOREIGN`, `CHKPT_PARENT_CYCLE`, and
 * `CHKPT_KEY`, errors of kind `damaged`.
 */
export async function findAncestors(newest: ChainMember, options: ChainOptions = {}): Promise<ChainMember[]> {
  const { ancestors, failure } = await followChain(newest, options);
  if (failure !== undefined) throw failure;
  return ancestors;
}

/** A chain as far as it can be followed. */
export interface FollowedChain {
  /** Nearest first. */
  readonly ancestors: ChainMember[];
  /** What is wrong with the next one; undefined when the chain is whole. */
  readonly failure: CheckpointError | undefined;
}

/** The same for whoever wants to know the ancestors that are there, too. Throws `CHKPT_ABORTED`. */
export async function followChain(newest: ChainMember, options: ChainOptions = {}): Promise<FollowedChain> {
  const ancestors: ChainMember[] = [];
  const given = new GivenParents(newest.store, options);
  try {
    for (let child = newest; child.parent !== undefined; ) {
      if (ancestors.length >= chainDepthMax) {
        throw parentError('CHKPT_PARENT_CYCLE', `more than ${chainDepthMax} parents`, child);
      }
      const parent = await findParent(child, given, options);
      checkLink(child, parent);
      ancestors.push(parent);
      child = parent;
    }
    return { ancestors, failure: undefined };
  } catch (error) {
    if (!(error instanceof CheckpointError) || error.kind === 'aborted') throw error;
    return { ancestors, failure: error };
  }
}

function checkLink(child: ChainMember, parent: ChainMember): void {
  if (parent.epoch >= child.epoch) {
    throw parentError('CHKPT_PARENT_CYCLE', 'the parent is not older than its child', child, parent);
  }
  if (describeRegions(parent.regions) !== describeRegions(child.regions)) {
    throw parentError('CHKPT_PARENT_FOREIGN', 'the parent has other memory regions', child, parent);
  }
}

async function findParent(
  child: ChainMember,
  given: GivenParents,
  options: ChainOptions,
): Promise<ChainMember> {
  const wanted = child.parent;
  if (wanted === undefined) throw new TypeError('no parent');
  const found = await given.find(wanted);
  if (found !== undefined) return found;
  if (wanted.url === undefined) {
    throw parentError('CHKPT_PARENT_MISSING', 'nobody told where the parent is', child);
  }
  let url = wanted.url;
  let parent: ChainMember;
  try {
    // The link is untrusted input, too: one that is no URL leads nowhere.
    url = parentUrl(url, child.store.url);
    parent = await describeMember(toStoreBeside(child.store, url), options);
  } catch (error) {
    if (error instanceof CheckpointError && tellsItself(error)) throw error;
    const what = `the parent cannot be opened at ${url}`;
    throw parentError('CHKPT_PARENT_MISSING', what, child, undefined, error);
  }
  if (standsFor(parent, wanted)) return parent;
  throw parentError('CHKPT_PARENT_FOREIGN', `another checkpoint is at ${url}`, child, parent);
}

/** A parent that is there, and cannot be used for a reason that its child has nothing to do with. */
function tellsItself({ kind, code }: CheckpointError): boolean {
  return kind === 'damaged' || kind === 'aborted' || code === 'CHKPT_KEY';
}

/** True when `member` is the checkpoint of that name, or stands in its place. */
export function standsFor(
  member: CheckpointName & Pick<ChainMember, 'replaces'>,
  wanted: CheckpointName,
): boolean {
  const isName = (name: CheckpointName | undefined): boolean =>
    name !== undefined && name.uuid === wanted.uuid && name.root === wanted.root;
  return isName(member) || isName(member.replaces);
}

/** Parents that the caller knows a place for. */
class GivenParents {
  readonly #child: Store;
  readonly #options: ChainOptions;
  #members: Promise<ChainMember[]> | undefined;

  constructor(child: Store, options: ChainOptions) {
    this.#child = child;
    this.#options = options;
  }

  async find(wanted: CheckpointName): Promise<ChainMember | undefined> {
    this.#members ??= Promise.all(
      (this.#options.parents ?? []).map((one) =>
        describeMember(toStoreBeside(this.#child, one), this.#options),
      ),
    );
    return (await this.#members).find((member) => standsFor(member, wanted));
  }
}

function parentError(
  code: ErrorCode,
  what: string,
  child: ChainMember,
  parent?: ChainMember,
  cause?: unknown,
): CheckpointError {
  const expected = child.parent?.uuid;
  return new CheckpointError(code, `${what}: ${expected} is wanted`, {
    details: { store: child.store.url, expected, actual: parent?.uuid },
    ...(cause === undefined ? {} : { cause }),
  });
}

/** How `childUrl` tells where its parent is: relative where both are files or folders, so that a folder of them can move. */
export function parentLink(parent: string, child: string): string {
  const from = realPathOf(child);
  const to = realPathOf(parent);
  if (to === undefined) return parent;
  // A child that is no file or folder, or several, may be read from anywhere.
  const scheme = readingScheme(parent);
  if (from === undefined) return `${scheme}:${to}`;
  const path = relative(dirname(from), to);
  return `${scheme}:${path.startsWith('../') ? path : `./${path}`}`;
}

/** Of a link, which has no room for a pool that lies elsewhere: nobody needs it to read. */
function readingScheme(url: string): string {
  const { scheme } = parseStoreUrl(url);
  return scheme === 'dir+pool' && url.includes('?pool=') ? 'dir' : scheme;
}

/** Throws `CHKPT_PARENT_CYCLE` when `target` is where `parent` is, under whatever name: what builds on it would have nothing left. */
export function checkPlace(parent: ChainMember, target: Store): void {
  if (target instanceof TeeStore) {
    for (const store of target.stores) checkPlace(parent, store);
    return;
  }
  const { url } = parent.store;
  const isSame =
    url === target.url ||
    (realPathOf(url) ?? url) === (realPathOf(target.url) ?? target.url) ||
    isSameS3Place(url, target.url);
  if (!isSame) return;
  throw new CheckpointError('CHKPT_PARENT_CYCLE', 'a checkpoint cannot take the place of its own parent', {
    details: { store: url, actual: parent.uuid },
  });
}

function isSameS3Place(left: string, right: string): boolean {
  const [first, second] = [parseStoreUrl(left), parseStoreUrl(right)];
  if (first.scheme !== 's3' || second.scheme !== 's3') return false;
  return isSamePlace(parsePlace(first.rest, left), parsePlace(second.rest, right));
}

/** The URL behind a link of the checkpoint at `child`. */
function parentUrl(link: string, child: string): string {
  const { scheme, rest } = parseStoreUrl(link);
  const from = pathOf(child);
  if (from === undefined || !/^\.\.?\//.test(rest)) return link;
  // A path that begins with two slashes would name a host.
  const folder = dirname(from).replace(/^\/+/, '/').replace(/\/$/, '');
  // Resolved, or the path of a chain that goes to and fro between two folders would grow with each member.
  const path = realPathOf(`${scheme}:${folder}/${rest}`);
  return path === undefined ? link : `${scheme}:${path}`;
}

/** Folders that are symbolic links are resolved: `..` behind one leads elsewhere. The last component is no link in any store. */
function realPathOf(url: string): string | undefined {
  const path = pathOf(url);
  if (path === undefined) return undefined;
  try {
    return `${realpathSync.native(dirname(path))}/${basename(path)}`.replace(/^\/+/, '/');
  } catch {
    // Whoever opens it will say why it cannot be found.
    return path;
  }
}

function pathOf(url: string): string | undefined {
  const { scheme, rest } = parseStoreUrl(url);
  if (scheme === 'file') return filePath(rest, url);
  return checkpointFolder({ scheme, rest }, url);
}
