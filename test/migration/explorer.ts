/** Every world that can be reached, breadth first: checks the invariants in each, and afterwards that each can come to a good end. */
import { type Edge, edges, leftAlone } from './edges.ts';
import {
  type Budget,
  checkSafety,
  initialWorld,
  isRunning,
  isSettled,
  keyOf,
  type Rules,
  Violation,
  type World,
} from './world.ts';

export interface Exploration {
  readonly worlds: number;
  readonly steps: number;
  readonly settled: number;
  /** Places of both reducers that were reached. */
  readonly places: ReadonlySet<string>;
  readonly ends: ReadonlyMap<string, number>;
}

/** Throws `Violation` with the shortest way to what is wrong. */
export function explore(budget: Budget, rules: Rules): Exploration {
  const first = initialWorld(budget);
  const numbers = new Map<string, number>([[keyOf(first), 0]]);
  const worlds: World[] = [first];
  const cameFrom: number[] = [-1];
  const cameBy: string[] = [''];
  /** Pairs (from, to) of steps that need no fault. */
  const calm: number[] = [];
  const places = new Set<string>();
  const alone = new Set<string>();
  let steps = 0;
  const fail = (error: unknown, at: number, last: string): never => {
    if (!(error instanceof Violation)) throw error;
    throw new Violation([error.message, ...wayTo(at, cameFrom, cameBy), last].join('\n  '));
  };
  for (let at = 0; at < worlds.length; at += 1) {
    const world = worlds[at] as World;
    places.add(`source ${world.source.state.at}`).add(`destination ${world.destination.state.at}`);
    let found: Edge[] = [];
    try {
      checkSafety(world);
      checkAlone(world, rules, alone);
      found = edges(world, rules);
    } catch (error) {
      fail(error, at, '(and then)');
    }
    for (const { name, next, fault } of found) {
      const key = keyOf(next);
      let to = numbers.get(key);
      if (to === undefined) {
        to = worlds.length;
        numbers.set(key, to);
        worlds.push(next);
        cameFrom.push(at);
        cameBy.push(name);
      }
      steps += 1;
      if (!fault && to !== at) calm.push(at, to);
    }
  }
  const stuck = firstWithoutEnd(worlds, calm);
  if (stuck >= 0)
    fail(new Violation('I3: no good end although the link is whole again'), stuck, '(for ever)');
  const settled = worlds.filter(isSettled).length;
  return { worlds: worlds.length, steps, settled, places, ends: endsOf(worlds) };
}

/** I4: with the link cut for ever. Each pair of hosts is looked at once, whatever is in flight. */
function checkAlone(world: World, rules: Rules, seen: Set<string>): void {
  const quiet: World = { ...world, net: [] };
  const key = keyOf(quiet);
  if (seen.has(key)) return;
  seen.add(key);
  const end = leftAlone(quiet, rules);
  if (end.lost || isRunning(end) === 1) return;
  const { source, destination } = end;
  const isInDoubt = source.state.at === 'inDoubt' && destination.guest !== 'runs';
  // Without a source the destination waits for it: it cannot know whether the guest runs there.
  const isWaiting = source.guest === 'none' && destination.guest === 'whole';
  if (!isInDoubt && !isWaiting)
    throw new Violation('I4: cut off, nobody runs the guest and nobody is in doubt');
}

function wayTo(at: number, cameFrom: readonly number[], cameBy: readonly string[]): string[] {
  const way: string[] = [];
  for (let step = at; step > 0; step = cameFrom[step] as number) way.unshift(cameBy[step] as string);
  return way;
}

/** The first world from which no settled one can be reached by calm steps; -1 when there is none. */
function firstWithoutEnd(worlds: readonly World[], calm: readonly number[]): number {
  const into: number[][] = worlds.map(() => []);
  for (let pair = 0; pair < calm.length; pair += 2)
    (into[calm[pair + 1] as number] as number[]).push(calm[pair] as number);
  const isGood = new Uint8Array(worlds.length);
  const queue: number[] = [];
  worlds.forEach((world, at) => {
    if (!isSettled(world)) return;
    isGood[at] = 1;
    queue.push(at);
  });
  for (let at = queue.pop(); at !== undefined; at = queue.pop()) {
    for (const before of into[at] as number[]) {
      if (isGood[before] === 1) continue;
      isGood[before] = 1;
      queue.push(before);
    }
  }
  return isGood.indexOf(0);
}

function endsOf(worlds: readonly World[]): Map<string, number> {
  const ends = new Map<string, number>();
  for (const { source, destination, lost } of worlds) {
    const end = `${lost ? 'lost' : 'whole'}: source ${source.guest}, destination ${destination.guest}`;
    ends.set(end, (ends.get(end) ?? 0) + 1);
  }
  return ends;
}
