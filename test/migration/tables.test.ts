/**
 * What each end does in each state with each event. The tables are files, to be read by people: a cell that changes, a state or a
 * message that is added, shows as a difference of `tables/*.txt` and has to be looked at.
 */
import { expect, it } from 'vitest';
import {
  type DestinationEvent,
  destinationPlaces,
  initialDestination,
  reduceDestination,
} from '../../src/migration/protocol/destination.ts';
import { reduceSource, type SourceEvent, sourcePlaces } from '../../src/migration/protocol/source.ts';

const sourceEvents: readonly SourceEvent[] = [
  { type: 'start' },
  { type: 'linkUp' },
  { type: 'linkLost' },
  { type: 'message', message: { type: 'accept', session: 1 } },
  { type: 'message', message: { type: 'accept', session: 2 } },
  { type: 'message', message: { type: 'prepared' } },
  { type: 'message', message: { type: 'running' } },
  { type: 'message', message: { type: 'complete' } },
  { type: 'message', message: { type: 'dropped', session: 1 } },
  { type: 'message', message: { type: 'dropped', session: 2 } },
  { type: 'message', message: { type: 'aborted' } },
  { type: 'message', message: { type: 'mayHaveRun' } },
  { type: 'persisted', record: 'begin' },
  { type: 'persisted', record: 'abort' },
  { type: 'persisted', record: 'commit' },
  { type: 'persisted', record: 'reclaim' },
  { type: 'persisted', record: 'released' },
  { type: 'persistFailed', record: 'begin' },
  { type: 'persistFailed', record: 'abort' },
  { type: 'persistFailed', record: 'commit' },
  { type: 'persistFailed', record: 'reclaim' },
  { type: 'persistFailed', record: 'released' },
  { type: 'converged' },
  { type: 'guestStopped' },
  { type: 'failed' },
  { type: 'cancel' },
  { type: 'retry' },
  { type: 'deadline' },
  { type: 'claimed', answer: 'won' },
  { type: 'claimed', answer: 'lost' },
  { type: 'claimed', answer: 'unknown' },
  { type: 'forceLocal' },
];

const destinationEvents: readonly DestinationEvent[] = [
  { type: 'linkUp' },
  { type: 'linkLost' },
  { type: 'message', message: { type: 'offer' } },
  { type: 'message', message: { type: 'end', session: 1 } },
  { type: 'message', message: { type: 'end', session: 2 } },
  { type: 'message', message: { type: 'commit' } },
  { type: 'message', message: { type: 'cancel' } },
  { type: 'message', message: { type: 'ask' } },
  { type: 'persisted', record: 'prepared' },
  { type: 'persisted', record: 'own' },
  { type: 'persisted', record: 'aborted' },
  { type: 'persistFailed', record: 'prepared' },
  { type: 'persistFailed', record: 'own' },
  { type: 'persistFailed', record: 'aborted' },
  { type: 'verified' },
  { type: 'failed' },
  { type: 'giveUp' },
  { type: 'claimed', answer: 'won' },
  { type: 'claimed', answer: 'lost' },
  { type: 'claimed', answer: 'unknown' },
  { type: 'pagesComplete' },
  { type: 'retry' },
];

/** `prepared`, `end 2`, … */
function textOf(thing: { readonly type: string } & object): string {
  const { type, ...rest } = thing;
  const values = Object.values(rest).map((value) =>
    typeof value === 'object' ? textOf(value as { readonly type: string }) : String(value),
  );
  const name = type === 'message' ? [] : [type];
  return [...name, ...values].join(' ');
}

interface Cell {
  readonly state: { readonly at: string };
  readonly effects: readonly ({ readonly type: string } & object)[];
}

/** One block for each state; what has no effect and changes nothing stands in its last line. */
function table<Event extends { readonly type: string }>(
  places: readonly string[],
  events: readonly Event[],
  reduce: (at: string, event: Event) => { readonly before: object; readonly cell: Cell },
): string {
  const blocks = places.map((at) => {
    const lines: string[] = [];
    const ignored: string[] = [];
    for (const event of events) {
      const { before, cell } = reduce(at, event);
      const effects = cell.effects.map(textOf).join(', ');
      const isSame = cell.state.at === at;
      if (isSame && effects === '' && JSON.stringify(cell.state) === JSON.stringify(before)) {
        ignored.push(textOf(event));
      } else {
        const [next, done] = [isSame ? '' : ` → ${cell.state.at}`, effects === '' ? '' : `: ${effects}`];
        lines.push(`  ${textOf(event)}${next}${done}`);
      }
    }
    return [at, ...lines, `  nothing: ${ignored.join(', ')}`].join('\n');
  });
  return `${blocks.join('\n\n')}\n`;
}

const options = { postcopy: false, witness: true };

it('the source does in every state with every event what its table says', async () => {
  const text = table(sourcePlaces, sourceEvents, (at, event) => {
    const before = { at: at as (typeof sourcePlaces)[number], hasGuest: true, linked: true, session: 1 };
    return { before, cell: reduceSource(before, event, options) };
  });
  await expect(text).toMatchFileSnapshot('tables/source.txt');
});

it('the destination does in every state with every event what its table says', async () => {
  const text = table(destinationPlaces, destinationEvents, (at, event) => {
    const before = { ...initialDestination(1), at: at as (typeof destinationPlaces)[number], linked: true };
    return { before, cell: reduceDestination(before, event, options) };
  });
  await expect(text).toMatchFileSnapshot('tables/destination.txt');
});
