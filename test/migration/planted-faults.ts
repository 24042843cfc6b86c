/** Protocols that are wrong in one place each: what the explorer has to find. */
import { reduceDestination } from '../../src/migration/protocol/destination.ts';
import { reduceSource } from '../../src/migration/protocol/source.ts';
import { protocol, type Rules } from './world.ts';

const right = protocol({ postcopy: false, witness: false });

export const plantedFaults: Readonly<Record<string, Rules>> = {
  'a source in doubt that resumes when the link breaks': {
    ...right,
    reduceSource: (state, event, options) =>
      state.at === 'inDoubt' && event.type === 'linkLost' && state.hasGuest
        ? { state: { ...state, at: 'stayed', linked: false }, effects: [{ type: 'resumeGuest' }] }
        : reduceSource(state, event, options),
  },
  'a source that resumes before ABORT is durable': {
    ...right,
    reduceSource: (state, event, options) => {
      const step = reduceSource(state, event, options);
      if (step.state.at !== 'aborting' || state.at === 'aborting') return step;
      return { state: { ...step.state, at: 'stayed' }, effects: [{ type: 'resumeGuest' }] };
    },
  },
  'a source that sends COMMIT before it is durable': {
    ...right,
    reduceSource: (state, event, options) => {
      const step = reduceSource(state, event, options);
      const begins = step.state.at === 'committing' && state.at !== 'committing';
      const commit = { type: 'send', message: { type: 'commit' } } as const;
      return begins ? { ...step, effects: [...step.effects, commit] } : step;
    },
  },
  'a source that takes DROPPED for ABORTED': {
    ...right,
    reduceSource: (state, event, options) =>
      event.type === 'message' && event.message.type === 'dropped'
        ? reduceSource(state, { type: 'message', message: { type: 'aborted' } }, options)
        : reduceSource(state, event, options),
  },
  'a source that destroys the guest when it commits': {
    ...right,
    reduceSource: (state, event, options) => {
      const step = reduceSource(state, event, options);
      const commits = step.state.at === 'inDoubt' && state.at === 'committing' && state.hasGuest;
      if (!commits) return step;
      return {
        state: { ...step.state, hasGuest: false },
        effects: [...step.effects, { type: 'destroyGuest' }],
      };
    },
  },
  'a destination that starts the guest before OWN is durable': {
    ...right,
    reduceDestination: (state, event, options) => {
      const step = reduceDestination(state, event, options);
      if (step.state.at !== 'owning' || state.at === 'owning') return step;
      return { ...step, effects: [{ type: 'startGuest' }, ...step.effects] };
    },
  },
  'a destination that forgets what it has prepared when the link breaks': {
    ...right,
    reduceDestination: (state, event, options) =>
      state.at === 'prepared' && event.type === 'linkLost'
        ? { state: { ...state, at: 'dropped', linked: false }, effects: [{ type: 'drop' }] }
        : reduceDestination(state, event, options),
  },
  'a destination that takes COMMIT after it has said ABORTED': {
    ...right,
    reduceDestination: (state, event, options) => {
      const isCommit = event.type === 'message' && event.message.type === 'commit';
      if (state.at !== 'aborted' || !isCommit) return reduceDestination(state, event, options);
      return { state: { ...state, at: 'running' }, effects: [{ type: 'startGuest' }] };
    },
  },
  'a source that never says COMMIT again': {
    ...right,
    reduceSource: (state, event, options) => {
      const step = reduceSource(state, event, options);
      if (state.at !== 'inDoubt') return step;
      const effects = step.effects.filter((effect) => effect.type !== 'send');
      return { ...step, effects };
    },
  },
};
