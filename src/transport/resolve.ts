/** From the host of an address to an IP address, before anything is decided about it. */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { CheckpointError } from '../errors/index.ts';
import { type Address, isLoopback } from './address.ts';

export interface Endpoint {
  /** Where to connect or listen: for `node:net`. */
  readonly where: { readonly path: string } | { readonly host: string; readonly port: number };
  /** Only this machine can reach it. */
  readonly isLocal: boolean;
}

/** Throws `CHKPT_LINK_LOST` when nobody knows the host. */
export async function resolveEndpoint(address: Address): Promise<Endpoint> {
  if (address.scheme === 'unix') return { where: { path: address.path }, isLocal: true };
  const { host: name, port } = address;
  const host = isIP(name) > 0 ? name : await lookUp(name);
  return { where: { host, port }, isLocal: isLoopback(host) };
}

async function lookUp(name: string): Promise<string> {
  try {
    return (await lookup(name)).address;
  } catch (error) {
    throw new CheckpointError('CHKPT_LINK_LOST', `nobody knows the host ${name}`, { cause: error });
  }
}
