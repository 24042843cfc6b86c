/**
 * Who goes on with a checkpoint, so that a machine is not continued twice: `loadVm` with `as: 'continue'`.
 *
 * A claim belongs to the UUID of a checkpoint, not to its place: another checkpoint saved there is unclaimed. It is a promise
 * among those who ask; a load that does not, and a copy of the files, know nothing of it.
 */

export interface Claim {
  /** The checkpoint, text form. */
  readonly uuid: string;
  /** Who goes on with it, for people. */
  readonly by: string;
  /** When it was claimed, milliseconds since 1970-01-01T00:00:00Z; 0 when that is not known. */
  readonly timeMs: number;
}

/** The claims of a store. Errors are those of its other methods. */
export interface StoreClaims {
  /** Who has claimed the checkpoint, if anybody has. */
  find(uuid: string): Promise<Claim | undefined>;
  /**
   * Claims. Of several at once exactly one succeeds, also among processes; durable when it resolves, where the store is durable.
   * Resolves to `undefined`, or to the claim that is there already and stays.
   */
  take(claim: Claim): Promise<Claim | undefined>;
  /** Takes a claim back whose owner has not gone on; does nothing when there is none. */
  withdraw(uuid: string): Promise<void>;
}

const textBytesMax = 4096;

/** The text of a claim's file: one line of JSON. */
export function serializeClaim({ uuid, by, timeMs }: Claim): string {
  const time = new Date(timeMs).toISOString();
  return `${JSON.stringify({ uuid, by, time })}\n`;
}

/**
 * Reads the file of a claim on `uuid`. That it exists is what counts: a text that cannot be read, because a crash cut it or somebody
 * changed it, is a claim of somebody unknown.
 */
export function parseClaim(uuid: string, text: Uint8Array): Claim {
  const unknown: Claim = { uuid, by: 'somebody unknown', timeMs: 0 };
  if (text.length > textBytesMax) return unknown;
  try {
    const { by, time } = JSON.parse(Buffer.from(text).toString('utf8')) as { by: unknown; time: unknown };
    const timeMs = Date.parse(String(time));
    if (typeof by !== 'string' || !Number.isSafeInteger(timeMs)) return unknown;
    return { uuid, by, timeMs };
  } catch {
    return unknown;
  }
}
