/** The connections of a destination to its source: one for control, the others for pages. The newest link counts. */
import { CheckpointError } from '../../errors/index.ts';
import type { RecordChannel } from '../wire/record-channel.ts';

export interface DestinationLink {
  readonly control: RecordChannel;
  /** By their number. */
  readonly data: Map<number, RecordChannel>;
  readonly count: number;
  readonly alive: NodeJS.Timeout;
}

export function dropLink(link: DestinationLink | undefined): void {
  if (link === undefined) return;
  clearInterval(link.alive);
  link.control.destroy();
  for (const channel of link.data.values()) channel.destroy();
}

/** The other end is gone, and may come again. */
export function isLost(error: unknown): boolean {
  return error instanceof CheckpointError && error.code === 'CHKPT_LINK_LOST';
}
