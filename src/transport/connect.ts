import type { Connection } from './connection.ts';
import type { LinkOptions } from './options.ts';
import type { Purpose } from './purpose.ts';

/** stub */
export function connect(
  _address: string,
  _purpose: Purpose,
  _options: LinkOptions = {},
): Promise<Connection> {
  throw new Error('not yet');
}
