/**
 * `*.localhost` is this machine (RFC 6761), which not every resolver knows: a service on loopback may be asked for with the bucket in the
 * name of the host. Such names are never asked of anybody else, so that what goes there does not leave this machine.
 */

import { lookup } from 'node:dns';
import type { LookupFunction } from 'node:net';

const suffix = '.localhost';

export function isLocalName(hostname: string): boolean {
  return hostname === 'localhost' || hostname.toLowerCase().endsWith(suffix);
}

/** As `dns.lookup`. */
export const lookupLocally: LookupFunction = (hostname, options, done) =>
  lookup(isLocalName(hostname) ? 'localhost' : hostname, options, done);
