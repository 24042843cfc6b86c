/**
 * The end that takes a guest.
 *
 * It runs the guest only after OWN is durable, and writes OWN only for a COMMIT. Once it has told PREPARED it forgets what it holds
 * only behind a durable ABORTED: the source may count on it.
 */
import {
  type ClaimAnswer,
  type DestinationMessage,
  type DestinationRecord,
  type Outcome,
  type ProtocolOptions,
  type SourceMessage,
  type Transition,
  to,
} from './terms.ts';

export const destinationPlaces = [
  'waiting',
  'receiving',
  'verifying',
  'preparing',
  'prepared',
  'claiming',
  'owning',
  'running',
  'abandoning',
  'aborted',
  'dropped',
  'mayHaveRun',
] as const;
export type DestinationPlace = (typeof destinationPlaces)[number];

export interface DestinationState {
  /**
   * waiting: nothing of the migration is here. receiving: pages come. verifying: counts, root digest, device state. preparing:
   * PREPARED is being written. prepared: the guest stands still here. claiming: the witness is asked. owning: OWN is being written.
   * running: the guest runs here. abandoning: ABORTED is being written. aborted: over, refused for ever. dropped: over before
   * PREPARED. mayHaveRun: restarted behind OWN, without the guest.
   */
  readonly at: DestinationPlace;
  readonly linked: boolean;
  /** Other for each start of the process, and for each time it begins to receive. */
  readonly session: number;
  /** Post-copy: all pages are here. */
  readonly complete: boolean;
}

export type DestinationEvent =
  | { readonly type: 'linkUp' }
  | { readonly type: 'linkLost' }
  | { readonly type: 'message'; readonly message: SourceMessage }
  | { readonly type: 'persisted'; readonly record: DestinationRecord }
  /** It may be durable all the same. */
  | { readonly type: 'persistFailed'; readonly record: DestinationRecord }
  | { readonly type: 'verified' }
  /** Verification, decoding or the machine refused; or the source did not come back in time. */
  | { readonly type: 'failed' }
  /** The owner of this end gives up. */
  | { readonly type: 'giveUp' }
  | { readonly type: 'claimed'; readonly answer: ClaimAnswer }
  /** Post-copy: the last page has come, and all is verified. */
  | { readonly type: 'pagesComplete' }
  | { readonly type: 'retry' };

export type DestinationEffect =
  | { readonly type: 'send'; readonly message: DestinationMessage }
  | { readonly type: 'persist'; readonly record: DestinationRecord }
  | { readonly type: 'verify' }
  | { readonly type: 'claim' }
  | { readonly type: 'startGuest' }
  /** Memory and state that were received. */
  | { readonly type: 'drop' }
  | { readonly type: 'settle'; readonly outcome: Outcome | 'dropped' };

type Step = Transition<DestinationState, DestinationEffect>;

/** `session`: a random number that no earlier process has used. */
export function initialDestination(session: number): DestinationState {
  return { at: 'waiting', linked: false, session, complete: false };
}

/** A process that was restarted: it has the journal, and no memory. The effects are to be carried out. */
export function recoverDestination(last: DestinationRecord | undefined, session: number): Step {
  const state = initialDestination(session);
  if (last === 'prepared') return abandon(state);
  if (last === 'own') return to({ ...state, at: 'mayHaveRun' });
  return to(last === 'aborted' ? { ...state, at: 'aborted' } : state);
}

const send = (message: DestinationMessage): DestinationEffect => ({ type: 'send', message });
const persist = (record: DestinationRecord): DestinationEffect => ({ type: 'persist', record });

export function reduceDestination(
  state: DestinationState,
  event: DestinationEvent,
  options: ProtocolOptions,
): Step {
  switch (event.type) {
    case 'linkUp':
      return sayAgain({ ...state, linked: true });
    case 'linkLost':
      return to({ ...state, linked: false });
    case 'retry':
      return state.at === 'claiming'
        ? to(state, { type: 'claim' })
        : state.linked
          ? sayAgain(state)
          : to(state);
    case 'message':
      return received(state, event.message, options);
    case 'persisted':
      return persisted(state, event.record);
    case 'persistFailed':
      return persistFailed(state, event.record);
    case 'verified':
      return state.at === 'verifying' ? to({ ...state, at: 'preparing' }, persist('prepared')) : to(state);
    case 'failed':
      if (state.at !== 'receiving' && state.at !== 'verifying') return to(state);
      return drop(state);
    case 'giveUp':
      if (isBeforePrepared(state)) return drop(state);
      return state.at === 'prepared' ? abandon(state) : to(state);
    case 'claimed':
      return claimed(state, event.answer);
    case 'pagesComplete':
      if (state.at !== 'running' || state.complete) return to(state);
      return to({ ...state, complete: true }, send({ type: 'complete' }));
  }
}

/** The source cannot count on what is here. */
function isBeforePrepared({ at }: DestinationState): boolean {
  return at === 'receiving' || at === 'verifying' || at === 'preparing';
}

function drop(state: DestinationState): Step {
  const settled: DestinationEffect = { type: 'settle', outcome: 'dropped' };
  return to({ ...state, at: 'dropped' }, { type: 'drop' }, sayDropped(state), settled);
}

function sayDropped({ session }: DestinationState): DestinationEffect {
  return send({ type: 'dropped', session });
}

function abandon(state: DestinationState): Step {
  return to({ ...state, at: 'abandoning' }, persist('aborted'));
}

function sayAgain(state: DestinationState): Step {
  switch (state.at) {
    case 'prepared':
      return to(state, send({ type: 'prepared' }));
    case 'running':
      return to(state, send({ type: state.complete ? 'complete' : 'running' }));
    default:
      return to(state);
  }
}

function persisted(state: DestinationState, record: DestinationRecord): Step {
  if (state.at === 'preparing' && record === 'prepared') {
    return to({ ...state, at: 'prepared' }, send({ type: 'prepared' }));
  }
  // It was being written when the rest went: what nobody was told must not stand there for ever.
  if (state.at === 'dropped' && record === 'prepared') return abandon(state);
  if (state.at === 'owning' && record === 'own') {
    const moved: DestinationEffect = { type: 'settle', outcome: 'moved' };
    return to({ ...state, at: 'running' }, { type: 'startGuest' }, send({ type: 'running' }), moved);
  }
  if (state.at === 'abandoning' && record === 'aborted') {
    const settled: DestinationEffect = { type: 'settle', outcome: 'dropped' };
    return to({ ...state, at: 'aborted' }, { type: 'drop' }, send({ type: 'aborted' }), settled);
  }
  return to(state);
}

function persistFailed(state: DestinationState, record: DestinationRecord): Step {
  // The source was not told; what a restart finds there is answered with ABORTED.
  if (state.at === 'preparing' && record === 'prepared') return drop(state);
  // It has not run. The next COMMIT tries again: this may be the last copy, so only its owner can give it up.
  if (state.at === 'owning' && record === 'own') return to({ ...state, at: 'prepared' });
  // Until it is written nothing may be said.
  if (state.at === 'abandoning' && record === 'aborted') return to(state, persist(record));
  return to(state);
}

function claimed(state: DestinationState, answer: ClaimAnswer): Step {
  if (state.at !== 'claiming' || answer === 'unknown') return to(state);
  return answer === 'won' ? to({ ...state, at: 'owning' }, persist('own')) : abandon(state);
}

function received(state: DestinationState, message: SourceMessage, options: ProtocolOptions): Step {
  switch (message.type) {
    case 'offer':
      return offered(state);
    case 'end':
      if (message.session !== state.session) return to(state);
      if (state.at === 'receiving') return to({ ...state, at: 'verifying' }, { type: 'verify' });
      return state.at === 'prepared' ? sayAgain(state) : to(state);
    case 'commit':
      if (state.at !== 'prepared') return asked(state);
      return options.witness
        ? to({ ...state, at: 'claiming' }, { type: 'claim' })
        : to({ ...state, at: 'owning' }, persist('own'));
    case 'ask':
      return state.at === 'prepared' ? sayAgain(state) : asked(state);
    case 'cancel':
      if (isBeforePrepared(state)) return drop(state);
      // The source says so only behind a record that ends this migration; OWN is not written.
      if (state.at === 'prepared' || state.at === 'claiming') return abandon(state);
      return cancelledBefore(state);
  }
}

/** There is nothing to give up any more: the answer may have been lost, and the source keeps its journal until it has it. */
function cancelledBefore(state: DestinationState): Step {
  switch (state.at) {
    case 'waiting':
    case 'dropped':
      return to(state, sayDropped(state));
    case 'aborted':
      return to(state, send({ type: 'aborted' }));
    default:
      return to(state);
  }
}

function offered(state: DestinationState): Step {
  switch (state.at) {
    case 'waiting':
    case 'receiving':
      return to({ ...state, at: 'receiving' }, send({ type: 'accept', session: state.session }));
    case 'aborted':
      return to(state, send({ type: 'aborted' }));
    case 'dropped':
      return to(state, sayDropped(state));
    default:
      return to(state);
  }
}

/** COMMIT, or the question of a restarted source, where nothing is prepared. */
function asked(state: DestinationState): Step {
  switch (state.at) {
    case 'waiting':
    case 'dropped':
      return abandon(state);
    // The source that sent these pages is no more.
    case 'receiving':
      return abandon(state);
    case 'running':
      return sayAgain(state);
    case 'aborted':
      return to(state, send({ type: 'aborted' }));
    case 'mayHaveRun':
      return to(state, send({ type: 'mayHaveRun' }));
    default:
      return to(state);
  }
}
