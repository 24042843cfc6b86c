/**
 * Store URLs: `scheme:rest`, and the paths inside them. Pure text; nothing is opened here.
 *
 * A text without `scheme:` is a path and means `file:`. One letter before a colon is not a scheme, so that
 * `c:x` stays a path. `-` alone is standard input or output and belongs to `fd:`.
 */
import { dirname, isAbsolute } from 'node:path';
import { CheckpointError } from '../errors/index.ts';
import { defaultPoolName } from './pool-names.ts';

export interface StoreUrl {
  /** Lower case. */
  readonly scheme: string;
  /** Everything behind the first colon, unchanged. */
  readonly rest: string;
}

const schemePattern = /^[a-z][a-z0-9+.-]+$/i;
const prefixPattern = /^([a-z][a-z0-9+.-]+):/i;

/** True for a name that `registerStore` accepts: at least two characters, the first a letter. */
export function isScheme(text: unknown): text is string {
  return typeof text === 'string' && schemePattern.test(text);
}

/** Splits a URL. Throws `TypeError` when it is no string and `CHKPT_STORE_URL` when it is empty. */
export function parseStoreUrl(url: string): StoreUrl {
  if (typeof url !== 'string') throw new TypeError(`a store URL is a string, not ${typeof url}`);
  if (url === '') throw urlError('the store URL is empty', url);
  if (url === '-') return { scheme: 'fd', rest: '-' };
  const scheme = prefixPattern.exec(url)?.[1];
  if (scheme === undefined) return { scheme: 'file', rest: url };
  return { scheme: scheme.toLowerCase(), rest: url.slice(scheme.length + 1) };
}

/**
 * The absolute path of a `file:` URL. `..` is left to the kernel, because resolving it as text goes wrong
 * behind a symbolic link. Throws `CHKPT_STORE_URL`.
 */
export function filePath(rest: string, url: string): string {
  const path = absolutePath(rest, url);
  if (/(^|\/)\.{0,2}$/.test(path)) throw urlError('the path names a folder, not a file', url);
  return path;
}

/** The absolute path of a `dir:` URL, without a slash at its end. Throws `CHKPT_STORE_URL`. */
export function directoryPath(rest: string, url: string): string {
  const path = absolutePath(rest, url).replace(/\/+$/, '');
  if (path === '') throw urlError('the root folder cannot be a checkpoint', url);
  return path;
}

const poolParameter = '?pool=';

/** The paths of a `dir+pool:` URL: the checkpoint, and its pool. Throws `CHKPT_STORE_URL`. */
export function pooledDirectoryPaths(rest: string, url: string): { path: string; pool: string } {
  const at = rest.lastIndexOf(poolParameter);
  const path = directoryPath(at === -1 ? rest : rest.slice(0, at), url);
  const pool =
    at === -1
      ? `${dirname(path)}/${defaultPoolName}`.replace(/^\/+/, '/')
      : directoryPath(rest.slice(at + poolParameter.length), url);
  if (path === pool) throw urlError('a checkpoint cannot be its own pool', url);
  return { path, pool };
}

/** The folder of a checkpoint that a `dir:` or `dir+pool:` URL names; `undefined` for other schemes. Throws `CHKPT_STORE_URL`. */
export function checkpointFolder({ scheme, rest }: StoreUrl, url: string): string | undefined {
  if (scheme === 'dir') return directoryPath(rest, url);
  return scheme === 'dir+pool' ? pooledDirectoryPaths(rest, url).path : undefined;
}

function absolutePath(rest: string, url: string): string {
  const path = rest.startsWith('//') ? decodeHostForm(rest, url) : rest;
  if (path === '') throw urlError('the path is empty', url);
  if (path.includes('\0')) throw urlError('the path has a NUL character', url);
  return isAbsolute(path) ? path : `${process.cwd().replace(/\/+$/, '')}/${path}`;
}

/** `//host/path` as in `file:///tmp/a%20b`: the only form whose percent signs mean anything. */
function decodeHostForm(rest: string, url: string): string {
  const slash = rest.indexOf('/', 2);
  const host = slash === -1 ? rest.slice(2) : rest.slice(2, slash);
  if (host !== '' && host.toLowerCase() !== 'localhost') {
    throw urlError(`the URL names the host ${host}; files are local`, url);
  }
  const encoded = slash === -1 ? '' : rest.slice(slash);
  if (/[?#]/.test(encoded)) throw urlError('write ? and # as %3F and %23 in this form', url);
  if (/%2f/i.test(encoded)) throw urlError('a file name cannot have a slash', url);
  try {
    return decodeURIComponent(encoded);
  } catch (error) {
    throw urlError('the percent encoding is not valid', url, error);
  }
}

/** The error of a URL that is not valid for its store. */
export function urlError(what: string, url: string, cause?: unknown): CheckpointError {
  return new CheckpointError('CHKPT_STORE_URL', what, {
    details: { store: url },
    ...(cause === undefined ? {} : { cause }),
  });
}
