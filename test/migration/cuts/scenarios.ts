/** Migrations whose messages are cut: what happens in them, over what, and what has been cut before. */
import { randomBytes } from 'node:crypto';
import type { ReceiveVmOptions, SendVmOptions } from '../../../src/index.ts';
import type { Cut, Place } from './cut-proxy.ts';

export type Carrier = 'tcp' | 'unix' | 'unix with a key' | 'TLS with a key';

export interface Scenario {
  readonly name: string;
  readonly carrier: Carrier;
  /** So that there is a second link, whose messages are cut. */
  readonly before?: Cut;
  readonly send?: SendVmOptions;
  readonly receive?: ReceiveVmOptions;
  /** Who gives up when this message has passed. */
  readonly givesUp?: { readonly who: 'source' | 'destination'; readonly at: Place };
  /** Nobody looks at the guest when it has arrived: it asks only for the pages that it touches. */
  readonly isUnwatched?: boolean;
  /** The destination has a machine of another shape. */
  readonly isOther?: boolean;
  /** Which of the messages are cut. */
  readonly phase: (place: Place) => boolean;
}

const handshake = ['hello', 'challenge', 'proof', 'welcome', 'join'];
const isGreeting = ({ kind }: Place): boolean => handshake.includes(kind);
/** Those that come at times of their own are cut where there is time for them. */
const all = ({ kind }: Place): boolean => kind !== 'alive';
const is =
  (...kinds: readonly string[]) =>
  ({ kind }: Place): boolean =>
    kinds.some((one) => kind === one || kind.endsWith(` of ${one}`));

const place = (text: string): Place => {
  const [channel = '', direction = '', ...kind] = text.split(' ');
  return { channel, direction, kind: kind.join(' ') } as Place;
};
const before = (text: string, at: Cut['at'], way: Cut['way'] = 'rst'): Cut => ({ ...place(text), at, way });
const postcopy: SendVmOptions = { strategy: 'postcopy', precopyRounds: 0, bandwidth: 4e6, codec: 'raw' };

/** With a name for each phase; a phase may be tried in several ways. */
export const scenarios: readonly Scenario[] = [
  { name: 'handshake', carrier: 'tcp', phase: isGreeting },
  { name: 'handshake', carrier: 'unix', phase: isGreeting },
  { name: 'handshake', carrier: 'unix with a key', phase: isGreeting },
  { name: 'handshake', carrier: 'TLS with a key', phase: all },
  { name: 'offer', carrier: 'tcp', phase: is('offer', 'accept') },
  { name: 'offer', carrier: 'tcp', isOther: true, phase: is('reason', 'dropped') },
  { name: 'rounds', carrier: 'tcp', phase: is('first') },
  // Long enough for both ends to say that they are there.
  { name: 'rounds', carrier: 'tcp', send: { bandwidth: 1e6, codec: 'raw' }, phase: is('alive') },
  {
    name: 'rounds',
    carrier: 'tcp',
    givesUp: { who: 'source', at: place('control toSource got of first') },
    phase: is('cancel', 'dropped'),
  },
  { name: 'last round', carrier: 'tcp', phase: is('rest', 'state') },
  { name: 'commit', carrier: 'tcp', phase: is('end', 'prepared', 'commit', 'running', 'done') },
  {
    name: 'commit',
    carrier: 'tcp',
    before: before('control toDestination commit', 0),
    givesUp: { who: 'destination', at: place('control toSource prepared') },
    phase: is('hello', 'challenge', 'proof', 'welcome', 'join', 'commit', 'aborted', 'done'),
  },
  {
    name: 'post-copy',
    carrier: 'tcp',
    send: postcopy,
    phase: (one) => one.channel === 'urgent' || is('missing', 'want', 'placed')(one),
  },
  {
    name: 'post-copy',
    carrier: 'tcp',
    send: postcopy,
    isUnwatched: true,
    phase: is('late pages', 'pages', 'complete'),
  },
  { name: 'resume', carrier: 'tcp', before: before('pages toDestination data of first', 16), phase: all },
  { name: 'resume', carrier: 'tcp', before: before('control toSource running', 0), phase: all },
  {
    name: 'resume',
    carrier: 'tcp',
    send: postcopy,
    isUnwatched: true,
    before: before('pages toDestination data of late pages', 16),
    phase: all,
  },
  // The source has given up, and tells a destination that has promised.
  {
    name: 'resume',
    carrier: 'tcp',
    send: { downtimeMaxMs: 400 },
    before: before('control toSource prepared', 0, 'hole'),
    phase: all,
  },
];

/** What both ends need for it; one key for each migration. */
export function securityOf(carrier: Carrier): {
  readonly scheme: 'unix' | 'tcp';
  readonly psk?: { key: Uint8Array; uses: number };
} {
  const scheme = carrier.startsWith('unix') ? 'unix' : 'tcp';
  return carrier.endsWith('key') ? { scheme, psk: { key: randomBytes(32), uses: 3 } } : { scheme };
}
