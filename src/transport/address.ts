/**
 * Addresses of connections: `tcp://host:port`, `tls://host:port`, `unix:/path`. Pure text; nothing is looked up here.
 *
 * An IPv6 host stands in brackets. Port 0, which only a listener takes, means any free one.
 */
import { isIPv4, isIPv6 } from 'node:net';
import { resolve } from 'node:path';

export type Address =
  | { readonly scheme: 'tcp' | 'tls'; readonly host: string; readonly port: number }
  | { readonly scheme: 'unix'; readonly path: string };

const portMax = 65_535;
const hostCharsMax = 253;
/** `sun_path` has 108 bytes, the last one is NUL. */
const unixPathBytesMax = 107;
const hostPattern = /^\/\/(?:\[([0-9a-f:.]+(?:%[\w.-]+)?)\]|([\w.-]+)):(\d{1,5})\/?$/i;

/** Parses an address. Throws `TypeError` when it is none. */
export function parseAddress(text: string): Address {
  if (typeof text !== 'string') throw new TypeError(`an address is a string, not ${typeof text}`);
  const [, scheme, rest] = /^(tcp|tls|unix):(.*)$/is.exec(text) ?? [];
  if (scheme === undefined || rest === undefined) throw wrong(text, 'not tcp:, tls: or unix:');
  if (scheme.toLowerCase() === 'unix') return { scheme: 'unix', path: unixPath(rest, text) };
  const [, v6, name, digits] = hostPattern.exec(rest) ?? [];
  const host = v6 ?? name;
  if (host === undefined) throw wrong(text, 'write //HOST:PORT, an IPv6 address in brackets');
  if (v6 !== undefined && !isIPv6(v6)) throw wrong(text, 'what stands in brackets is no IPv6 address');
  if (host.length > hostCharsMax) throw wrong(text, 'the host is too long');
  const port = Number(digits);
  if (port > portMax) throw wrong(text, `a port is at most ${portMax}`);
  return { scheme: scheme.toLowerCase() as 'tcp' | 'tls', host, port };
}

function unixPath(rest: string, text: string): string {
  const path = rest.startsWith('//') ? rest.slice(2) : rest;
  if (path === '' || path.includes('\0')) throw wrong(text, 'the path is empty or has a NUL character');
  if (Buffer.byteLength(path) > unixPathBytesMax) {
    throw wrong(text, `the path of a socket has at most ${unixPathBytesMax} bytes`);
  }
  return path;
}

/** The text of an address; `parseAddress` takes it back. */
export function formatAddress(address: Address): string {
  if (address.scheme === 'unix') return `unix:${address.path}`;
  const host = isIPv6(address.host) || address.host.includes(':') ? `[${address.host}]` : address.host;
  return `${address.scheme}://${host}:${address.port}`;
}

/** The address as any process of this host can use it, whatever its working folder. Throws as `parseAddress`. */
export function absoluteAddress(text: string): string {
  const address = parseAddress(text);
  return formatAddress(address.scheme === 'unix' ? { scheme: 'unix', path: resolve(address.path) } : address);
}

/** True for an IP address that only this machine can reach. Names are for `lookup` first. */
export function isLoopback(ip: string): boolean {
  const plain = ip.toLowerCase().replace(/^::ffff:/, '');
  return isIPv4(plain) ? plain.startsWith('127.') : plain === '::1' || plain === '0:0:0:0:0:0:0:1';
}

function wrong(text: string, why: string): TypeError {
  return new TypeError(`not an address: ${text}: ${why}`);
}
