/**
 * Two hosts, a network and a witness around the two reducers, as one immutable value. What is true of the guest (who runs it, who has it
 * whole) is kept beside the reducers' own states: the oracle does not believe them.
 *
 * The network keeps each message that was sent once until it is lost: it may be delivered at any later time, any number of times, in
 * any order. That is more than TCP can do.
 */
import {
  type DestinationState,
  initialDestination,
  reduceDestination,
} from '../../src/migration/protocol/destination.ts';
import { initialSource, reduceSource, type SourceState } from '../../src/migration/protocol/source.ts';
import type { DestinationRecord, ProtocolOptions, SourceRecord } from '../../src/migration/protocol/terms.ts';

export interface Budget {
  readonly losses: number;
  readonly copies: number;
  readonly crashes: number;
  readonly cuts: number;
  readonly failures: number;
}

/** The protocol, or one with a planted fault. */
export interface Rules extends ProtocolOptions {
  readonly reduceSource: typeof reduceSource;
  readonly reduceDestination: typeof reduceDestination;
}

export const protocol = (options: ProtocolOptions): Rules => ({
  ...options,
  reduceSource,
  reduceDestination,
});

export interface SourceHost {
  readonly state: SourceState;
  readonly journal?: SourceRecord | undefined;
  /** In the order in which they reach the disk. */
  readonly writing: readonly SourceRecord[];
  readonly stopping: boolean;
  readonly claiming: boolean;
  /** What is true of the guest on this host. */
  readonly guest: 'runs' | 'stands' | 'none';
  /** Which session of the destination it has sent pages to. */
  readonly sentTo: number;
}

export interface DestinationHost {
  readonly state: DestinationState;
  readonly journal?: DestinationRecord | undefined;
  readonly writing: readonly DestinationRecord[];
  readonly verifying: boolean;
  readonly claiming: boolean;
  /** partial: some pages. whole: what the source had when it stopped. */
  readonly guest: 'none' | 'partial' | 'whole' | 'runs';
}

export interface World {
  readonly source: SourceHost;
  readonly destination: DestinationHost;
  /** In flight, by text, sorted. */
  readonly net: readonly string[];
  readonly witness: 'free' | 'source' | 'destination';
  /** The source's guest has run since the last page was sent: what the destination has is old. */
  readonly stale: boolean;
  /** The guest has run on the destination. */
  readonly ranThere: boolean;
  /** For which session `end` was sent. */
  readonly endedFor: number;
  /** A crash, or an owner, ended the only whole copy. Nothing can be asked of the protocol any more but never two. */
  readonly lost: boolean;
  readonly left: Budget;
}

export class Violation extends Error {}

export function initialWorld(left: Budget): World {
  return {
    source: { state: initialSource, writing: [], stopping: false, claiming: false, guest: 'runs', sentTo: 0 },
    destination: {
      state: initialDestination(1),
      writing: [],
      verifying: false,
      claiming: false,
      guest: 'none',
    },
    net: [],
    witness: 'free',
    stale: false,
    ranThere: false,
    endedFor: 0,
    lost: false,
    left,
  };
}

/** Equal for equal worlds: every field is in it. */
export function keyOf({ source, destination, net, ...rest }: World): string {
  const { state: from } = source;
  const { state: at } = destination;
  return [
    `${from.at} ${from.hasGuest} ${from.linked} ${from.session} ${from.claimLost}`,
    `${source.journal} ${source.writing} ${source.stopping} ${source.claiming} ${source.guest} ${source.sentTo}`,
    `${at.at} ${at.linked} ${at.session} ${at.complete}`,
    `${destination.journal} ${destination.writing} ${destination.verifying} ${destination.claiming} ${destination.guest}`,
    `${net} ${rest.witness} ${rest.stale} ${rest.ranThere} ${rest.endedFor} ${rest.lost}`,
    `${rest.left.losses} ${rest.left.copies} ${rest.left.crashes} ${rest.left.cuts} ${rest.left.failures}`,
  ].join('|');
}

export const isRunning = (world: World): number =>
  (world.source.guest === 'runs' ? 1 : 0) + (world.destination.guest === 'runs' ? 1 : 0);

/** I1 and I2; I5 is checked when a guest is started. */
export function checkSafety(world: World): void {
  const { source, destination } = world;
  if (isRunning(world) > 1) throw new Violation('I1: the guest runs on both hosts');
  const isWhole = source.guest !== 'none' || destination.guest === 'whole' || destination.guest === 'runs';
  if (!world.lost && !isWhole) throw new Violation('I2: no host has the guest');
  if (source.guest !== 'none' && !source.state.hasGuest) throw new Violation('the source forgot its guest');
}

/** The protocol has done what it has to do. */
export function isSettled(world: World): boolean {
  if (world.lost) return isRunning(world) <= 1;
  const { source, destination } = world;
  if (isRunning(world) !== 1) return false;
  return source.guest === 'runs' ? source.state.at === 'stayed' : destination.state.at === 'running';
}
