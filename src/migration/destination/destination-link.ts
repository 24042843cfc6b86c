/** The connections of a destination to its source: one for control, the others for pages. The newest link counts. */
import { setTimeout as sleep } from 'node:timers/promises';
import { CheckpointError } from '../../errors/index.ts';
import type { RecordChannel } from '../wire/record-channel.ts';

/** How long the news of a broken link may take. */
const linkNewsMs = 200;

export interface DestinationLink {
  readonly control: RecordChannel;
  /** By their number. */
  readonly data: Map<number, RecordChannel>;
  readonly count: number;
  readonly alive: NodeJS.Timeout;
  /** Runs while connections for pages are missing. */
  lacking?: NodeJS.Timeout;
}

/**
 * Gives the link up unless the next connection for pages comes within `ms`, if one is missing: what the source sends over one that it takes for
 * whole would never arrive.
 */
export function awaitData(link: DestinationLink, ms: number): void {
  clearTimeout(link.lacking);
  if (link.data.size < link.count) link.lacking = setTimeout(() => dropLink(link), ms);
}

export function dropLink(link: DestinationLink | undefined): void {
  if (link === undefined) return;
  clearInterval(link.alive);
  clearTimeout(link.lacking);
  link.control.destroy();
  for (const channel of link.data.values()) channel.destroy();
}

/** The connection is whole, and what failed is something else: a decoder may say so in the words of a link that is lost. */
export async function isOfThisEnd(error: unknown, { connection }: RecordChannel): Promise<boolean> {
  if (error instanceof CheckpointError && error.code === 'CHKPT_LINK_LOST') return false;
  const isGone = connection.closed.then(() => true);
  return !(await Promise.race([isGone, sleep(linkNewsMs, false, { ref: false })]));
}
