/** One event at one end of a world, and its effects carried out. */
import type { DestinationEffect, DestinationEvent } from '../../src/migration/protocol/destination.ts';
import type { SourceEffect, SourceEvent } from '../../src/migration/protocol/source.ts';
import type { DestinationMessage, SourceMessage } from '../../src/migration/protocol/terms.ts';
import { type DestinationHost, type Rules, type SourceHost, Violation, type World } from './world.ts';

export function stepSource(world: World, event: SourceEvent, rules: Rules): World {
  const { state, effects } = rules.reduceSource(world.source.state, event, rules);
  let next: World = { ...world, source: { ...world.source, state } };
  for (const effect of effects) next = carryOutSource(next, effect);
  return next;
}

function carryOutSource(world: World, effect: SourceEffect): World {
  const host = world.source;
  const keep = (change: Partial<SourceHost>): World => ({ ...world, source: { ...host, ...change } });
  switch (effect.type) {
    case 'send':
      return host.state.linked ? post(world, 'd:', effect.message) : world;
    case 'persist':
      return keep({ writing: [...host.writing, effect.record] });
    case 'transfer':
      if (host.guest !== 'runs') throw new Violation('sends pages of a guest that it does not run');
      return keep({ sentTo: host.state.session ?? 0 });
    case 'stopGuest':
      return keep({ stopping: true });
    case 'finish': {
      const end: SourceMessage = { type: 'end', session: effect.session };
      const ended: World = { ...world, endedFor: effect.session, stale: false };
      return host.state.linked ? post(ended, 'd:', end) : ended;
    }
    case 'resumeGuest':
      if (host.guest === 'none') throw new Violation('the source resumes a guest that it does not have');
      if (world.ranThere)
        throw new Violation('I1: the source resumes a guest that has run on the destination');
      return { ...keep({ guest: 'runs', stopping: false }), stale: true };
    case 'destroyGuest':
      return keep({ guest: 'none' });
    case 'claim':
      return keep({ claiming: true });
    case 'serve':
    case 'refuseCancel':
    case 'settle':
      return world;
  }
}

export function stepDestination(world: World, event: DestinationEvent, rules: Rules): World {
  const { state, effects } = rules.reduceDestination(world.destination.state, event, rules);
  return carryOutDestination({ ...world, destination: { ...world.destination, state } }, effects);
}

export function carryOutDestination(world: World, effects: readonly DestinationEffect[]): World {
  let next = world;
  for (const effect of effects) next = carryOut(next, effect);
  return next;
}

function carryOut(world: World, effect: DestinationEffect): World {
  const host = world.destination;
  const keep = (change: Partial<DestinationHost>): World => ({
    ...world,
    destination: { ...host, ...change },
  });
  switch (effect.type) {
    case 'send': {
      const begins = effect.message.type === 'accept' && host.guest === 'none';
      const from = begins ? keep({ guest: 'partial' }) : world;
      return host.state.linked ? post(from, 's:', effect.message) : from;
    }
    case 'persist':
      return keep({ writing: [...host.writing, effect.record] });
    case 'verify':
      return keep({ verifying: true });
    case 'claim':
      return keep({ claiming: true });
    case 'startGuest':
      if (host.guest !== 'whole') throw new Violation(`starts a guest of which it has: ${host.guest}`);
      if (world.stale) throw new Violation('I5: the source ran on after what the destination starts from');
      return { ...keep({ guest: 'runs' }), ranThere: true };
    case 'drop':
      return keep({ guest: 'none', verifying: false });
    case 'settle':
      return world;
  }
}

/** By the text under which they are in flight. */
export const messages = new Map<string, SourceMessage | DestinationMessage>();

function post(world: World, to: 's:' | 'd:', message: SourceMessage | DestinationMessage): World {
  const text = to + JSON.stringify(message);
  messages.set(text, message);
  if (world.net.includes(text)) return world;
  return { ...world, net: [...world.net, text].sort() };
}
