/** Everything that can happen to a world: what happens by itself, and what goes wrong. */
import { type DestinationEvent, recoverDestination } from '../../src/migration/protocol/destination.ts';
import { recoverSource, type SourceEvent } from '../../src/migration/protocol/source.ts';
import type {
  DestinationMessage,
  DestinationRecord,
  SourceMessage,
  SourceRecord,
} from '../../src/migration/protocol/terms.ts';
import { carryOutDestination, messages, stepDestination, stepSource } from './steps.ts';
import type { Budget, DestinationHost, Rules, SourceHost, World } from './world.ts';

export interface Edge {
  readonly name: string;
  /** Something that goes wrong, or that somebody decides. The others happen by themselves when nothing goes wrong. */
  readonly fault: boolean;
  readonly next: World;
}

export function edges(world: World, rules: Rules): Edge[] {
  const found: Edge[] = [];
  const add = (name: string, next: World, fault = false): void => {
    found.push({ name, fault, next });
  };
  deliveries(world, rules, add);
  sourceEdges(world, rules, add);
  destinationEdges(world, rules, add);
  faults(world, rules, add);
  return found;
}

type Add = (name: string, next: World, fault?: boolean) => void;

function spend(world: World, what: keyof Budget): World {
  return { ...world, left: { ...world.left, [what]: world.left[what] - 1 } };
}

function deliveries(world: World, rules: Rules, add: Add): void {
  for (const [index, text] of world.net.entries()) {
    const isForSource = text.startsWith('s:');
    const message = messages.get(text);
    const deliver = (from: World): World =>
      isForSource
        ? stepSource(from, { type: 'message', message: message as DestinationMessage }, rules)
        : stepDestination(from, { type: 'message', message: message as SourceMessage }, rules);
    const taken: World = { ...world, net: world.net.filter((_, at) => at !== index) };
    add(`deliver ${text}`, deliver(taken));
    if (world.left.copies > 0) add(`deliver a copy of ${text}`, deliver(spend(world, 'copies')), true);
    if (world.left.losses > 0) add(`lose ${text}`, spend(taken, 'losses'), true);
  }
}

function sourceEdges(world: World, rules: Rules, add: Add): void {
  const host = world.source;
  const on = (event: SourceEvent, from = world): World => stepSource(from, event, rules);
  const keep = (change: Partial<SourceHost>): World => ({ ...world, source: { ...host, ...change } });
  if (host.state.at === 'idle') add('start', on({ type: 'start' }));
  const [record, ...writing] = host.writing;
  if (record !== undefined) {
    add(`source wrote ${record}`, on({ type: 'persisted', record }, keep({ writing, journal: record })));
  }
  if (host.stopping) {
    const stopped = keep({ stopping: false, guest: host.guest === 'runs' ? 'stands' : host.guest });
    add('source stopped', on({ type: 'guestStopped' }, stopped));
  }
  if (host.claiming) {
    const answer = world.witness === 'destination' ? 'lost' : 'won';
    const asked: World = {
      ...keep({ claiming: false }),
      witness: answer === 'won' ? 'source' : 'destination',
    };
    add(`source ${answer} the claim`, on({ type: 'claimed', answer }, asked));
  }
  if (host.state.at === 'precopy') add('converged', on({ type: 'converged' }));
  if (host.state.at === 'stopped') add('the guest stood still for too long', on({ type: 'failed' }));
  if (host.state.linked) add('source says it again', on({ type: 'retry' }));
  else add('a new link', newLink(world, rules));
  // A link that the other end has lost is lost here too, sooner or later.
  if (host.state.linked && !world.destination.state.linked) {
    add('source notices the broken link', on({ type: 'linkLost' }));
  }
  if (rules.witness) add('in doubt for too long', on({ type: 'deadline' }), true);
}

/** The source makes it; the destination may learn by it that the old one is broken. */
function newLink(world: World, rules: Rules): World {
  const cut = world.destination.state.linked ? stepDestination(world, { type: 'linkLost' }, rules) : world;
  return stepSource(stepDestination(cut, { type: 'linkUp' }, rules), { type: 'linkUp' }, rules);
}

function destinationEdges(world: World, rules: Rules, add: Add): void {
  const host = world.destination;
  const on = (event: DestinationEvent, from = world): World => stepDestination(from, event, rules);
  const keep = (change: Partial<DestinationHost>): World => ({
    ...world,
    destination: { ...host, ...change },
  });
  const [record, ...writing] = host.writing;
  if (record !== undefined) {
    const written = keep({ writing, journal: record });
    add(`destination wrote ${record}`, on({ type: 'persisted', record }, written));
  }
  if (host.verifying) {
    // True only of pages that were sent to this very session.
    const isWhole = host.state.session === world.endedFor && world.source.sentTo >= host.state.session;
    const done = keep({ verifying: false, guest: isWhole ? 'whole' : host.guest });
    add('destination verified', on({ type: isWhole ? 'verified' : 'failed' }, done));
  }
  if (host.claiming) {
    const answer = world.witness === 'source' ? 'lost' : 'won';
    const asked: World = {
      ...keep({ claiming: false }),
      witness: answer === 'won' ? 'destination' : 'source',
    };
    add(`destination ${answer} the claim`, on({ type: 'claimed', answer }, asked));
  }
  if (rules.postcopy && host.guest === 'runs' && !host.state.complete && world.source.guest !== 'none') {
    add('all pages came', on({ type: 'pagesComplete' }));
  }
  if (host.state.linked) add('destination says it again', on({ type: 'retry' }));
  if (host.state.linked && !world.source.state.linked) {
    add('destination notices the broken link', on({ type: 'linkLost' }));
  }
}

function faults(world: World, rules: Rules, add: Add): void {
  const { source, destination, left } = world;
  const onSource = (event: SourceEvent, from: World): World => stepSource(from, event, rules);
  const onDestination = (event: DestinationEvent, from: World): World => stepDestination(from, event, rules);
  if (left.cuts > 0) {
    const cut = spend(world, 'cuts');
    if (source.state.linked) add('source lost the link', onSource({ type: 'linkLost' }, cut), true);
    if (destination.state.linked)
      add('destination lost the link', onDestination({ type: 'linkLost' }, cut), true);
  }
  if (left.failures > 0) {
    const failed = spend(world, 'failures');
    add('source failed', onSource({ type: 'failed' }, failed), true);
    add('cancel', onSource({ type: 'cancel' }, failed), true);
    add('destination failed', onDestination({ type: 'failed' }, failed), true);
    const givenUp = onDestination({ type: 'giveUp' }, failed);
    add('destination gave up', { ...givenUp, lost: world.lost || source.guest === 'none' }, true);
    failingWrites(failed, rules, add);
  }
  if (left.crashes > 0) {
    crashes(spend(world, 'crashes'), add);
  }
}

/** What both hosts come to when no message and no link comes any more, and every time limit passes. */
export function leftAlone(world: World, rules: Rules): World {
  let now = world;
  for (let step = 0; step < 30; step += 1) {
    const { source, destination } = now;
    const found: Edge[] = [];
    const add: Add = (name, next, fault = false) => found.push({ name, next, fault });
    sourceEdges(now, rules, add);
    destinationEdges(now, rules, add);
    const own = found.find(
      ({ name, fault }) => !fault && !/link|again|converged|^start|pages came/.test(name),
    );
    const isOverdue = source.state.at !== 'idle' && source.state.at !== 'inDoubt';
    if (own !== undefined) now = own.next;
    else if (source.state.linked) now = stepSource(now, { type: 'linkLost' }, rules);
    else if (destination.state.linked) now = stepDestination(now, { type: 'linkLost' }, rules);
    else if (isOverdue && step < 20) now = stepSource(now, { type: 'failed' }, rules);
    else return now;
  }
  return now;
}

/** A write that fails may have reached the disk. */
function failingWrites(world: World, rules: Rules, add: Add): void {
  const { source, destination } = world;
  for (const isWritten of [false, true]) {
    const [mine, ...later] = source.writing;
    if (mine !== undefined) {
      const host: SourceHost = { ...source, writing: later, journal: isWritten ? mine : source.journal };
      const next = stepSource({ ...world, source: host }, { type: 'persistFailed', record: mine }, rules);
      add(`source failed to write ${mine}, on disk: ${isWritten}`, next, true);
    }
    const [record, ...others] = destination.writing;
    if (record !== undefined) {
      const journal = isWritten ? record : destination.journal;
      const host: DestinationHost = { ...destination, writing: others, journal };
      // It keeps nothing that it could not promise, also when it has the last copy.
      const lost = world.lost || (record === 'prepared' && source.guest === 'none');
      const from: World = { ...world, lost, destination: host };
      const next = stepDestination(from, { type: 'persistFailed', record }, rules);
      add(`destination failed to write ${record}, on disk: ${isWritten}`, next, true);
    }
  }
}

/** A process ends and starts again: it has its journal. Of what it was writing any first part is there. */
function crashes(world: World, add: Add): void {
  for (const journal of [world.source.journal, ...world.source.writing]) {
    add(`source crashed, on disk: ${journal}`, sourceCrash(world, journal), true);
  }
  for (const journal of [world.destination.journal, ...world.destination.writing]) {
    add(`destination crashed, on disk: ${journal}`, destinationCrash(world, journal), true);
  }
}

function sourceCrash(world: World, journal: SourceRecord | undefined): World {
  const { source, destination } = world;
  const hadGuest = source.guest !== 'none';
  const goesOn = destination.guest === 'runs' && destination.state.complete;
  // What the destination is about to forget was given up while this copy was there.
  const isKept = destination.guest === 'whole' && destination.state.at !== 'abandoning';
  const mayGoOn = isKept && mayCommit(world, journal);
  return {
    ...world,
    lost: world.lost || (hadGuest && !goesOn && !mayGoOn),
    source: {
      state: recoverSource(journal),
      journal,
      writing: [],
      stopping: false,
      claiming: false,
      guest: 'none',
      sentTo: source.sentTo,
    },
  };
}

function destinationCrash(world: World, journal: DestinationRecord | undefined): World {
  const { source, destination } = world;
  const recovered = recoverDestination(journal, destination.state.session + 1);
  const wasLast = source.guest === 'none' && destination.guest === 'whole';
  const host: DestinationHost = {
    state: recovered.state,
    journal,
    writing: [],
    verifying: false,
    claiming: false,
    guest: 'none',
  };
  // Behind OWN nobody can tell whether it has run.
  const lost = world.lost || destination.guest === 'runs' || wasLast || journal === 'own';
  return carryOutDestination({ ...world, lost, destination: host }, recovered.effects);
}

/** Whether the destination can still get to run what it holds after the source was restarted. */
function mayCommit(world: World, journal: SourceRecord | undefined): boolean {
  if (world.destination.guest === 'runs') return true;
  return (journal === 'begin' || journal === 'commit') && world.witness !== 'source';
}
