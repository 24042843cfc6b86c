/**
 * The end that has the guest and gives it away.
 *
 * Before COMMIT is durable every failure ends with the guest running here. Afterwards nothing makes it run here but the word of the
 * destination that it never will, or the witness, or an operator who has fenced the destination.
 */
import {
  type ClaimAnswer,
  type DestinationMessage,
  type Outcome,
  type ProtocolOptions,
  type SourceMessage,
  type SourceRecord,
  type Transition,
  to,
} from './terms.ts';

export const sourcePlaces = [
  'idle',
  'beginning',
  'precopy',
  'stopping',
  'stopped',
  'committing',
  'inDoubt',
  'serving',
  'releasing',
  'released',
  'aborting',
  'reclaiming',
  'stayed',
  'orphaned',
  'gone',
] as const;
export type SourcePlace = (typeof sourcePlaces)[number];

export interface SourceState {
  /**
   * idle: nothing was begun. beginning: BEGIN is being written. precopy: the guest runs, pages are sent. stopping: it was told to stop.
   * stopped: what is left is sent. committing: COMMIT is being written. inDoubt: COMMIT is durable. serving: post-copy, the guest runs
   * on the destination. releasing: RELEASED is being written. released: over, the destination has it. aborting: ABORT is being
   * written. reclaiming: RECLAIM is being written. stayed: over, the guest runs here. orphaned: restarted before COMMIT, without the
   * guest's memory. gone: over, the guest ended with the process that was restarted.
   */
  readonly at: SourcePlace;
  /** False: a restarted process, which does not have the guest any more. */
  readonly hasGuest: boolean;
  readonly linked: boolean;
  /** Of the destination's last `accept`. */
  readonly session?: number | undefined;
  /** The witness has the name of the destination. */
  readonly claimLost?: boolean | undefined;
  /** Post-copy: the destination has said that all pages are there. */
  readonly complete?: boolean | undefined;
}

export type SourceEvent =
  | { readonly type: 'start' }
  /** The link was made, or made again. */
  | { readonly type: 'linkUp' }
  | { readonly type: 'linkLost' }
  | { readonly type: 'message'; readonly message: DestinationMessage }
  | { readonly type: 'persisted'; readonly record: SourceRecord }
  /** It may be durable all the same. */
  | { readonly type: 'persistFailed'; readonly record: SourceRecord }
  /** What is left fits the downtime: stop the guest. */
  | { readonly type: 'converged' }
  | { readonly type: 'guestStopped' }
  /** Reading, encoding, sending or stopping failed; or a time was up while the guest may still run here. */
  | { readonly type: 'failed' }
  | { readonly type: 'cancel' }
  /** Time to say again what has not been answered. */
  | { readonly type: 'retry' }
  /** In doubt for too long. */
  | { readonly type: 'deadline' }
  | { readonly type: 'claimed'; readonly answer: ClaimAnswer }
  /** An operator gives his word that the destination cannot run the guest. */
  | { readonly type: 'forceLocal' };

export type SourceEffect =
  | { readonly type: 'send'; readonly message: SourceMessage }
  | { readonly type: 'persist'; readonly record: SourceRecord }
  /** Send pages while the guest runs: all, or after a broken link those that the destination lacks. */
  | { readonly type: 'transfer' }
  | { readonly type: 'stopGuest' }
  /** Send what is left, then `end`. */
  | { readonly type: 'finish'; readonly session: number }
  /** Lets the guest run again, when it was stopped or is stopping. */
  | { readonly type: 'resumeGuest' }
  | { readonly type: 'destroyGuest' }
  /** Post-copy: give pages on demand until `complete`. */
  | { readonly type: 'serve' }
  | { readonly type: 'claim' }
  /** `cancel` came too late. */
  | { readonly type: 'refuseCancel' }
  | { readonly type: 'settle'; readonly outcome: Outcome };

type Step = Transition<SourceState, SourceEffect>;

export const initialSource: SourceState = { at: 'idle', hasGuest: true, linked: false };

/** A process that was restarted: it has the journal, and no guest. */
export function recoverSource(last: SourceRecord | undefined): SourceState {
  const at = (
    { begin: 'orphaned', abort: 'gone', commit: 'inDoubt', reclaim: 'gone', released: 'released' } as const
  )[last ?? 'abort'];
  return { at, hasGuest: false, linked: false };
}

const send = (message: SourceMessage): SourceEffect => ({ type: 'send', message });
const persist = (record: SourceRecord): SourceEffect => ({ type: 'persist', record });
const settle = (outcome: Outcome): SourceEffect => ({ type: 'settle', outcome });

export function reduceSource(state: SourceState, event: SourceEvent, options: ProtocolOptions): Step {
  switch (event.type) {
    case 'linkUp':
      return linkUp({ ...state, linked: true });
    case 'linkLost':
      return linkLost({ ...state, linked: false });
    case 'message':
      return received(state, event.message, options);
    case 'persisted':
      return persisted(state, event.record, options);
    case 'persistFailed':
      return persistFailed(state, event.record);
    case 'cancel':
      return cancelled(state);
    case 'failed':
      return mayStillAbort(state) ? abort(state) : to(state);
    case 'retry':
      return state.linked ? sayAgain(state) : to(state);
    case 'claimed':
      return claimed(state, event.answer);
    case 'deadline':
      if (state.at !== 'inDoubt') return to(state);
      return to(
        state,
        settle('inDoubt'),
        ...(options.witness && state.claimLost !== true && state.hasGuest
          ? [{ type: 'claim' } as const]
          : []),
      );
    case 'forceLocal':
      // Without the guest there is nothing to take back, and what the destination holds may be the last copy.
      if (state.at !== 'inDoubt' || !state.hasGuest) return to(state);
      // Whoever can ask the witness takes nobody's word.
      return options.witness ? to(state, { type: 'claim' }) : reclaim(state);
    default:
      return own(state, event);
  }
}

/** Events of the migration's own course. */
function own(state: SourceState, event: { readonly type: 'start' | 'converged' | 'guestStopped' }): Step {
  if (state.at === 'idle' && event.type === 'start')
    return to({ ...state, at: 'beginning' }, persist('begin'));
  if (state.at === 'precopy' && event.type === 'converged' && state.linked && state.session !== undefined) {
    return to({ ...state, at: 'stopping' }, { type: 'stopGuest' });
  }
  if (state.at === 'stopping' && event.type === 'guestStopped' && state.session !== undefined) {
    return to({ ...state, at: 'stopped' }, { type: 'finish', session: state.session });
  }
  return to(state);
}

/** Before COMMIT is on its way. */
function mayStillAbort({ at }: SourceState): boolean {
  return at === 'beginning' || at === 'precopy' || at === 'stopping' || at === 'stopped';
}

/** The guest goes on here; ABORT first, because a COMMIT of a restarted source must not bring back what was sent until now. */
function abort(state: SourceState): Step {
  return to({ ...state, at: 'aborting' }, persist('abort'));
}

function reclaim(state: SourceState): Step {
  return to({ ...state, at: 'reclaiming' }, persist('reclaim'));
}

function cancelled(state: SourceState): Step {
  if (state.at === 'idle') return to({ ...state, at: 'stayed' }, settle('stayed'));
  if (mayStillAbort(state)) return abort(state);
  const isOver = ['released', 'stayed', 'gone', 'aborting', 'reclaiming'].includes(state.at);
  return isOver ? to(state) : to(state, { type: 'refuseCancel' });
}

function linkUp(state: SourceState): Step {
  // The session is agreed on anew: the destination may have been restarted.
  if (state.at === 'precopy') return to({ ...state, session: undefined }, send({ type: 'offer' }));
  return sayAgain(state);
}

function sayAgain(state: SourceState): Step {
  switch (state.at) {
    case 'precopy':
      return state.session === undefined ? to(state, send({ type: 'offer' })) : to(state);
    case 'inDoubt':
    case 'serving':
      return to(state, send({ type: 'commit' }));
    case 'orphaned':
      return to(state, send({ type: 'ask' }));
    default:
      return to(state);
  }
}

function linkLost(state: SourceState): Step {
  // Pre-copy waits for a new link; a guest that stands still does not.
  return state.at === 'stopping' || state.at === 'stopped' ? abort(state) : to(state);
}

function persisted(state: SourceState, record: SourceRecord, options: ProtocolOptions): Step {
  if (state.at === 'beginning' && record === 'begin') {
    return to({ ...state, at: 'precopy' }, ...(state.linked ? [send({ type: 'offer' })] : []));
  }
  if (state.at === 'committing' && record === 'commit') {
    return to({ ...state, at: 'inDoubt' }, send({ type: 'commit' }));
  }
  if (state.at === 'releasing' && record === 'released') {
    // Post-copy needs the pages of both hosts.
    const outcome = options.postcopy && !state.hasGuest && state.complete !== true ? 'lost' : 'moved';
    return to({ ...state, at: 'released', hasGuest: false }, { type: 'destroyGuest' }, settle(outcome));
  }
  if (
    (state.at === 'aborting' && record === 'abort') ||
    (state.at === 'reclaiming' && record === 'reclaim')
  ) {
    if (!state.hasGuest) return to({ ...state, at: 'gone' }, send({ type: 'cancel' }), settle('lost'));
    return to(
      { ...state, at: 'stayed' },
      { type: 'resumeGuest' },
      send({ type: 'cancel' }),
      settle('stayed'),
    );
  }
  return to(state);
}

function persistFailed(state: SourceState, record: SourceRecord): Step {
  // Nothing was sent: the migration has not begun.
  if (state.at === 'beginning' && record === 'begin') return abort(state);
  // COMMIT was not sent, but a restart might find it: ABORT has to stand behind it before the guest runs.
  if (state.at === 'committing' && record === 'commit') {
    return state.hasGuest ? abort(state) : to({ ...state, at: 'orphaned' });
  }
  // Without the record nothing else may be done; the guest stands still until it is written.
  const awaited = { aborting: 'abort', reclaiming: 'reclaim', releasing: 'released' }[state.at as string];
  return record === awaited ? to(state, persist(record)) : to(state);
}

function claimed(state: SourceState, answer: ClaimAnswer): Step {
  if (state.at !== 'inDoubt') return to(state);
  if (answer === 'won') return reclaim(state);
  return to(answer === 'lost' ? { ...state, claimLost: true } : state);
}

function received(state: SourceState, message: DestinationMessage, options: ProtocolOptions): Step {
  switch (message.type) {
    case 'accept':
      if (state.at !== 'precopy') return to(state);
      // The same again: a copy of an old answer, or of this one.
      if (state.session === message.session) return to(state);
      return to({ ...state, session: message.session }, { type: 'transfer' });
    case 'prepared':
      return prepared(state);
    case 'running':
    case 'complete':
      return running(state, message.type, options);
    case 'dropped':
      // Said of another session it says nothing of this one.
      if (!mayStillAbort(state) || (state.session ?? message.session) !== message.session) return to(state);
      return abort(state);
    case 'aborted':
      if (mayStillAbort(state)) return abort(state);
      if (state.at === 'inDoubt' || state.at === 'orphaned') return reclaim(state);
      return to(state);
    case 'mayHaveRun':
      // Only an operator can say what became of it.
      if (state.at === 'inDoubt') return to(state, settle('inDoubt'));
      return state.at === 'serving' ? to(state, settle('lost')) : to(state);
  }
}

function prepared(state: SourceState): Step {
  switch (state.at) {
    case 'stopped':
    // Restarted without having resumed the guest after `end` (there is no ABORT): what the destination holds is the newest.
    case 'orphaned':
      return to({ ...state, at: 'committing' }, persist('commit'));
    case 'inDoubt':
    case 'serving':
      return to(state, send({ type: 'commit' }));
    case 'stayed':
    case 'gone':
      return to(state, send({ type: 'cancel' }));
    default:
      return to(state);
  }
}

function running(state: SourceState, type: 'running' | 'complete', options: ProtocolOptions): Step {
  if (state.at !== 'inDoubt' && state.at !== 'serving') return to(state);
  if (options.postcopy && type === 'running' && state.hasGuest) {
    return state.at === 'serving' ? to(state) : to({ ...state, at: 'serving' }, { type: 'serve' });
  }
  const releasing: SourceState = { ...state, at: 'releasing' };
  return to(type === 'complete' ? { ...releasing, complete: true } : releasing, persist('released'));
}
