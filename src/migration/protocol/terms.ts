/**
 * The words of the commit protocol: what decides which of two hosts runs a guest. Memory, state and everything else that takes time
 * go beside it; to this protocol they are events.
 *
 * Both ends are pure functions (state, event) → (state, effects). They do no I/O, read no clock and draw no random number: a driver
 * carries out the effects and reports how they went as events. `docs/migration.md` has tables and drawings; the same rules are checked
 * exhaustively by `test/migration/explorer.ts`, and once more by spin (`test/migration/commit.pml`).
 */

/** What is written to a host's journal, flushed, before anything that depends on it is done. The last record counts. */
export type SourceRecord =
  /** A migration has begun; this host owns the guest. */
  | 'begin'
  /** It came to nothing: its COMMIT is never sent. Durable before a guest that was stopped runs again. */
  | 'abort'
  /** The guest belongs to the destination: the point of no return. Durable before COMMIT is sent. */
  | 'commit'
  /** The destination has refused for ever, or is fenced: the guest belongs here again. */
  | 'reclaim'
  /** The destination runs it. */
  | 'released';

export type DestinationRecord =
  /** Everything is here and verified. Durable before the source is told. */
  | 'prepared'
  /** This host owns the guest. Durable before its first instruction. */
  | 'own'
  /** This host will never run this guest. Durable before the source is told. */
  | 'aborted';

/** From the source. */
export type SourceMessage =
  /** Begins, and after a broken link goes on. */
  | { readonly type: 'offer' }
  /** All was sent in this session: verify. */
  | { readonly type: 'end'; readonly session: number }
  | { readonly type: 'commit' }
  /** The migration came to nothing. */
  | { readonly type: 'cancel' }
  /** From a source that was restarted: what do you hold? */
  | { readonly type: 'ask' };

/** From the destination. */
export type DestinationMessage =
  /** Names the session: whoever was restarted in between holds nothing of what an older session sent. */
  | { readonly type: 'accept'; readonly session: number }
  | { readonly type: 'prepared' }
  | { readonly type: 'running' }
  /** Post-copy: all pages are here and verified. */
  | { readonly type: 'complete' }
  /** What this session brought is gone. No promise: a destination that is restarted may begin again. */
  | { readonly type: 'dropped'; readonly session: number }
  /** It will never run here. */
  | { readonly type: 'aborted' }
  /** It was about to run, or ran, before this host was restarted. */
  | { readonly type: 'mayHaveRun' };

/** How a migration is done; both ends agree on it before `offer`. */
export interface ProtocolOptions {
  /** The guest runs on the destination before its memory is complete. */
  readonly postcopy: boolean;
  /** A store with exclusive create decides who owns the guest when the link does not come back. */
  readonly witness: boolean;
}

/** Answer of the witness to a claim. Claims of one host are idempotent; at most one host ever wins. */
export type ClaimAnswer = 'won' | 'lost' | 'unknown';

export interface Transition<State, Effect> {
  readonly state: State;
  /** In this order; `persist` is answered by `persisted` or `persistFailed`. */
  readonly effects: readonly Effect[];
}

/** How a migration ended, for whoever started it. */
export type Outcome =
  /** The guest runs on the destination. */
  | 'moved'
  /** The guest runs on the source, as if nothing had happened. */
  | 'stayed'
  /** Nobody knows yet: `MigrationInDoubtError`. The protocol goes on. */
  | 'inDoubt'
  /** The host that held the guest was restarted and nobody else has it. */
  | 'lost';

export function to<State, Effect>(state: State, ...effects: Effect[]): Transition<State, Effect> {
  return { state, effects };
}
