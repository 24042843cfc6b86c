/**
 * `s3://bucket/key?options`: what the URL of an object store says. Pure text; nothing is opened here.
 *
 * Bucket and key are percent-decoded, as in every URL. Names and secrets of accounts have no place in it: chkpt records URLs of parents
 * in their children.
 */
import { CheckpointError } from '../../errors/index.ts';
import { isUuid } from '../temporary-names.ts';
import { urlError } from '../url.ts';
import { isLocalName } from './local-names.ts';

const mebibyte = 1024 * 1024;

/** Services refuse smaller parts, but for the last one. */
export const partBytesMin = 5 * mebibyte;
/** A bound on memory, with the number of parts under way. */
export const partBytesMax = 64 * mebibyte;
export const concurrencyMax = 16;
const partBytesDefault = 8 * mebibyte;
const concurrencyDefault = 4;
/** Longest time that replaced data may be kept: a month. */
export const keepSecondsMax = 31 * 24 * 3600;

/** Services take 1024 bytes; names of data objects need some of them. */
const keyBytesMax = 900;
const bucketPattern = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;

/** How a service is reached and used. Whatever is not given is asked of the SDK: environment, profile, instance. */
export interface S3Settings {
  /** `http:` or `https:` URL of a service that is not AWS. */
  readonly endpoint?: string | undefined;
  /** The bucket in the path, not in the host name. Default: true with an endpoint. */
  readonly pathStyle?: boolean | undefined;
  readonly region?: string | undefined;
  /** Bytes of one part, 5 to 64 MiB; default 8 MiB. A save holds `concurrency` + 1 of them, a load `concurrency`. */
  readonly partBytes?: number | undefined;
  /** Parts under way at a time, 1 to 16; default 4. */
  readonly concurrency?: number | undefined;
  /** How long what was replaced stays readable for loads of other processes, seconds; default 0. */
  readonly keepSeconds?: number | undefined;
  /** Allows `http:` to a host that is not this machine. Default false. */
  readonly insecure?: boolean | undefined;
}

/** Where a checkpoint is: its manifest under `key`, everything else under names that begin with `folder`. */
export interface S3Place {
  readonly bucket: string;
  readonly key: string;
  readonly settings: S3Settings;
}

/** What follows the key of a manifest in the names of everything that belongs to it. */
export const folderMark = '.objects/';

/** Bytes of one part and number of them, with defaults. */
export function limitsOf({ partBytes, concurrency }: S3Settings): { partBytes: number; concurrency: number } {
  return { partBytes: partBytes ?? partBytesDefault, concurrency: concurrency ?? concurrencyDefault };
}

export function dataPrefix(place: Pick<S3Place, 'key'>): string {
  return `${place.key}${folderMark}`;
}

export function claimKey(place: Pick<S3Place, 'key'>, uuid: string): string {
  if (!isUuid(uuid)) throw new TypeError(`not a UUID: ${uuid}`);
  return `${dataPrefix(place)}${uuid}.continued`;
}

/** The place of a checkpoint. Throws `CHKPT_STORE_URL`. */
export function parsePlace(rest: string, url: string, given: S3Settings = {}): S3Place {
  const place = parsePrefix(rest, url, given);
  if (place.key === '' || place.key.endsWith('/')) throw urlError('s3: needs s3://BUCKET/KEY', url);
  if (place.key.includes(folderMark)) {
    throw urlError(`a key cannot have ${folderMark} in it: objects of checkpoints have`, url);
  }
  return place;
}

/** The same where the key may be the beginning of several, or empty. Throws `CHKPT_STORE_URL`. */
export function parsePrefix(rest: string, url: string, given: S3Settings = {}): S3Place {
  const mark = rest.indexOf('?');
  const path = mark === -1 ? rest : rest.slice(0, mark);
  if (!path.startsWith('//')) throw urlError('s3: needs s3://BUCKET/KEY', url);
  const slash = path.indexOf('/', 2);
  const bucket = slash === -1 ? path.slice(2) : path.slice(2, slash);
  if (!bucketPattern.test(bucket)) throw urlError('the name of the bucket is not valid', url);
  if (path.includes('#')) throw urlError('write # as %23', url);
  const key = slash === -1 ? '' : decode(path.slice(slash + 1), url);
  if (Buffer.byteLength(key) > keyBytesMax) throw urlError(`the key has more than ${keyBytesMax} bytes`, url);
  if (hasControlCharacter(key)) throw urlError('the key has a control character', url);
  const settings = { ...definedOf(given), ...(mark === -1 ? {} : settingsOf(rest.slice(mark + 1), url)) };
  checkSettings(settings, url);
  return { bucket, key, settings };
}

/** True when both are, or may be, the same place under other names. Nothing is resolved: an endpoint that one leaves open may be the other's. */
export function isSamePlace(left: S3Place, right: S3Place): boolean {
  if (left.bucket !== right.bucket || left.key !== right.key) return false;
  const [first, second] = [left, right].map(({ settings }) => settings.endpoint);
  return first === undefined || second === undefined || originOf(first) === originOf(second);
}

/** Throws `CHKPT_INSECURE` where objects would cross a network that others may reach as plain text. */
export function checkTransport(endpoint: URL, { insecure = false }: S3Settings, store: string): void {
  const { protocol, hostname } = endpoint;
  if (protocol === 'https:' || insecure || isLoopback(hostname)) return;
  throw new CheckpointError(
    'CHKPT_INSECURE',
    `${protocol}//${hostname} is neither encrypted nor this machine`,
    {
      details: { store },
    },
  );
}

function isLoopback(hostname: string): boolean {
  return isLocalName(hostname) || hostname === '[::1]' || /^127(\.\d{1,3}){3}$/.test(hostname);
}

function settingsOf(query: string, url: string): S3Settings {
  const settings: Record<string, unknown> = {};
  for (const piece of query.split('&')) {
    const equals = piece.indexOf('=');
    const [name, value] = equals === -1 ? [piece, ''] : [piece.slice(0, equals), piece.slice(equals + 1)];
    const parse = parameters[name];
    if (parse === undefined) {
      throw urlError(`s3: knows ${Object.keys(parameters).join(', ')}, not ${name || 'nothing'}`, url);
    }
    const [key, parsed] = parse(decode(value, url), url);
    if (key in settings) throw urlError(`${name} is given twice`, url);
    settings[key] = parsed;
  }
  return settings;
}

type Parameter = (value: string, url: string) => [keyof S3Settings, unknown];

const parameters: Readonly<Record<string, Parameter>> = {
  __proto__: null as never,
  endpoint: (value) => ['endpoint', value],
  region: (value) => ['region', value],
  'path-style': (value, url) => ['pathStyle', flagOf(value, url)],
  'part-mib': (value, url) => ['partBytes', numberOf(value, url) * mebibyte],
  concurrency: (value, url) => ['concurrency', numberOf(value, url)],
  keep: (value, url) => ['keepSeconds', numberOf(value, url)],
  insecure: (value, url) => ['insecure', flagOf(value, url)],
};

function flagOf(value: string, url: string): boolean {
  if (value === 'true' || value === 'false') return value === 'true';
  throw urlError(`true or false, not ${value}`, url);
}

function numberOf(value: string, url: string): number {
  if (/^[0-9]{1,9}$/.test(value)) return Number(value);
  throw urlError(`a whole number, not ${value}`, url);
}

/** Throws `CHKPT_STORE_URL`. */
function checkSettings(settings: S3Settings, url: string): void {
  const { endpoint, region, partBytes, concurrency, keepSeconds } = settings;
  if (endpoint !== undefined) checkEndpoint(endpoint, url);
  if (region !== undefined && !/^[a-z0-9-]{1,64}$/.test(region))
    throw urlError('the region is not valid', url);
  checkRange('part-mib', partBytes, partBytesMin, partBytesMax, url);
  checkRange('concurrency', concurrency, 1, concurrencyMax, url);
  checkRange('keep', keepSeconds, 0, keepSecondsMax, url);
}

function checkEndpoint(endpoint: string, url: string): void {
  const parsed = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  const isPlain =
    parsed?.username === '' && parsed.password === '' && parsed.search === '' && parsed.hash === '';
  if (!isPlain || !['http:', 'https:'].includes(parsed.protocol)) {
    throw urlError('the endpoint is http://HOST:PORT or https://HOST:PORT, without names and secrets', url);
  }
}

function checkRange(name: string, value: number | undefined, min: number, max: number, url: string): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= min && value <= max)) return;
  throw urlError(`${name} is not between its bounds, ${min} and ${max}`, url);
}

function definedOf(settings: S3Settings): S3Settings {
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined));
}

function originOf(endpoint: string): string {
  return URL.canParse(endpoint) ? new URL(endpoint).origin : endpoint;
}

function hasControlCharacter(text: string): boolean {
  return [...text].some((character) => character < ' ' || character === '\u007f');
}

function decode(text: string, url: string): string {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    throw urlError('the percent encoding is not valid', url, error);
  }
}
