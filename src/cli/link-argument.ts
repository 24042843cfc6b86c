/** Options of connections: what `--tls-…`, `--psk-file` and `--insecure` say, and stores that need them. */
import { readFileSync } from 'node:fs';
import { CheckpointError, fromSystemError } from '../errors/index.ts';
import { openPalaciosStore, palaciosNetScheme } from '../foreign/palacios/register.ts';
import {
  encrypted,
  openStreamStore,
  type Store,
  type StreamStore,
  type StreamStoreOptions,
} from '../store/index.ts';
import { parseStoreUrl } from '../store/url.ts';
import type { Invocation } from './invocation.ts';
import { keysOf } from './key-argument.ts';
import { linkOptions } from './link-options.ts';
import type { ParsedLine } from './parse-line.ts';
import { printable } from './printable.ts';
import { storeOf } from './store-argument.ts';
import { usageError } from './usage-error.ts';

const schemes: ReadonlySet<string> = new Set(['tcp', 'tls', 'unix']);
const pskBytes = 32;
const fileBytesMax = 1024 * 1024;

/** True for the URL of a connection. */
export function isLink(url: string): boolean {
  return schemes.has(parseStoreUrl(url).scheme);
}

/**
 * The store of an operand that may be a connection, as the options of the line say. Opens nothing but their files. Throws `CHKPT_USAGE`,
 * `CHKPT_STORE_URL`, `CHKPT_NOT_FOUND`, …
 */
export function linkedStoreOf(url: string, invocation: Invocation, role: 'connect' | 'listen'): Store {
  const key = keysOf(invocation.line);
  if (isLink(url)) {
    const link = openLink(url, invocation, role, 1);
    return key === undefined ? link : encrypted(link, { key });
  }
  const given = linkOptions.find(({ name }) => invocation.line.has(name));
  if (given !== undefined) throw usageError(`--${given.name} goes with tcp:, tls: and unix:`);
  return palaciosNetOf(url, invocation, key) ?? storeOf(url, key);
}

/** The store of a connection to a Palacios; `undefined` for other URLs. Throws as `linkedStoreOf`. */
export function palaciosNetOf(
  url: string,
  { line, common, output }: Pick<Invocation, 'line' | 'common' | 'output'>,
  key: ReturnType<typeof keysOf>,
): Store | undefined {
  if (parseStoreUrl(url).scheme !== palaciosNetScheme) return undefined;
  if (key !== undefined) throw usageError('a Palacios reads no encrypted checkpoints');
  return openPalaciosStore(url, {
    insecure: line.has('insecure'),
    onListening: (address) => {
      if (!common.quiet) output.note(`listening at ${printable(address)}`);
    },
  });
}

/** `count`: how many senders are taken, one after the other. */
export function openLink(
  url: string,
  { line, common, output }: Pick<Invocation, 'line' | 'common' | 'output'>,
  role: 'connect' | 'listen',
  count: number,
): StreamStore {
  const security = securityOf(url, line, role);
  const isPortAsked = /:0\/?$/.test(url) && parseStoreUrl(url).scheme !== 'unix';
  return openStreamStore(url, {
    ...security,
    count,
    onListening: (address) => {
      // Nobody could connect to a port that is not told.
      if (common.json) output.note(JSON.stringify({ listening: address }));
      else if (isPortAsked || !common.quiet) output.note(`listening at ${printable(address)}`);
    },
    onRefusal: (error, remote) => {
      if (!common.quiet && !common.json)
        output.note(`refused ${printable(remote)}: ${printable(error.message)}`);
    },
  });
}

/** What protects a connection. Throws `CHKPT_USAGE`, and what reading files does. */
export function securityOf(
  url: string,
  line: ParsedLine,
  role: 'connect' | 'listen',
): Pick<StreamStoreOptions, 'tls' | 'psk' | 'insecure'> {
  return { ...tlsOf(url, line, role), ...pskOf(line), insecure: line.has('insecure') };
}

function tlsOf(url: string, line: ParsedLine, role: 'connect' | 'listen'): Pick<StreamStoreOptions, 'tls'> {
  const names = ['tls-key', 'tls-cert', 'tls-ca'] as const;
  if (!names.some((name) => line.has(name)) && !line.has('tls-peer')) return {};
  const { scheme } = parseStoreUrl(url);
  if (scheme !== 'tls') throw usageError(`${scheme}: takes no certificates; write tls://HOST:PORT`);
  const [key = '', cert = '', ca = ''] = names.map((name) => {
    const path = line.last(name);
    if (path === undefined)
      throw usageError(`--${name} is missing: --tls-key, --tls-cert and --tls-ca go together`);
    return readSmall(path).toString('utf8');
  });
  const peers = new Set(line.all('tls-peer').map(fingerprintOf));
  if (role === 'listen' && peers.size === 0) {
    throw usageError('--tls-peer FINGERPRINT is missing: whom to take checkpoints from');
  }
  const authorise = ({ fingerprint256 }: { readonly fingerprint256: string }): boolean =>
    peers.size === 0 || peers.has(fingerprint256.replaceAll(':', ''));
  return { tls: { key, cert, ca, authorise } };
}

function fingerprintOf(text: string): string {
  const digits = text.replaceAll(':', '').toUpperCase();
  if (/^[0-9A-F]{64}$/.test(digits)) return digits;
  throw usageError(
    `--tls-peer ${text}: 64 hexadecimal digits are expected, as openssl x509 -noout -fingerprint -sha256 shows them`,
  );
}

function pskOf(line: ParsedLine): Pick<StreamStoreOptions, 'psk'> {
  const path = line.last('psk-file');
  if (path === undefined) return {};
  const bytes = readSmall(path);
  const digits = bytes.toString('latin1').trim();
  const key = /^[0-9a-f]{64}$/i.test(digits) ? Buffer.from(digits, 'hex') : bytes;
  if (key.length !== pskBytes || key.every((byte) => byte === key[0])) {
    throw usageError(`${path}: 32 random bytes or 64 hexadecimal digits are expected: openssl rand -hex 32`);
  }
  return { psk: { key } };
}

function readSmall(path: string): Buffer {
  try {
    const bytes = readFileSync(path);
    if (bytes.length <= fileBytesMax) return bytes;
  } catch (error) {
    throw fromSystemError(error, 'cannot read', { path });
  }
  throw new CheckpointError('CHKPT_USAGE', `${path} is too long for what it is to be`);
}
