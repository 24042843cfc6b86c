/** Which cuts there are, which of them are tried, and many migrations at the same time. */
import { readdirSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { randomOf } from '../random.ts';
import { type Cut, textOf, type Way, ways } from './cut-proxy.ts';
import type { Message } from './named-messages.ts';
import { type Ended, runCut, type Seen } from './one-cut.ts';
import type { Scenario } from './scenarios.ts';

export interface Trial {
  readonly scenario: Scenario;
  readonly cut: Cut;
}

/** TLS records of each direction in which its own handshake and ours are, and one behind. */
const tlsRecordsMax = 8;

/** What passes in a migration of the scenario, each kind once. */
export async function placesOf(scenario: Scenario): Promise<readonly Seen[]> {
  const { seen } = await runCut(scenario, undefined);
  const kinds = new Map<string, Seen>();
  for (const one of seen) {
    const isLate = one.kind.startsWith('TLS') && Number(one.kind.slice(11)) > tlsRecordsMax;
    if (scenario.phase(one) && !isLate && !kinds.has(textOf(one))) kinds.set(textOf(one), one);
  }
  return [...kinds.values()];
}

/** At the boundaries, behind every byte of the header, and inside of what follows. */
function positionsOf({ headerBytes, totalBytes }: Message): Cut['at'][] {
  const header = Array.from({ length: headerBytes + 1 }, (_, at) => at);
  if (totalBytes === headerBytes) return header;
  return totalBytes === headerBytes + 1 ? [...header, 'end'] : [...header, 'middle', 'end'];
}

export function trialsOf(scenario: Scenario, places: readonly Seen[]): Trial[] {
  return places.flatMap(({ channel, direction, kind, message }) =>
    positionsOf(message).flatMap((at) =>
      // The whole link falls silent: one connection that does is tried at every byte.
      ways
        .filter((way) => way !== 'silence' || at === 0 || at === 'middle' || at === 'end')
        .map((way) => ({ scenario, cut: { channel, direction, kind, at, way } })),
    ),
  );
}

/** Kind of message, direction and way; a TLS record is one as another. */
export function cellOf({ cut: { kind, direction, way } }: Trial): string {
  return `${kind.replace(/(?<=TLS record).*/, '')} ${direction} ${way}`;
}

export function shuffled<T>(things: readonly T[], seed: number): T[] {
  const random = randomOf(seed);
  const keys = new Map(things.map((thing) => [thing, random()]));
  return [...things].sort((one, other) => (keys.get(one) ?? 0) - (keys.get(other) ?? 0));
}

/** One trial of each cell. */
export function sampleOf(trials: readonly Trial[], seed: number): Trial[] {
  const cells = new Map<string, Trial>();
  for (const trial of shuffled(trials, seed)) cells.set(cellOf(trial), cells.get(cellOf(trial)) ?? trial);
  return [...cells.values()];
}

/** How many ended how, by phase and way. */
export class Counts {
  readonly #counts = new Map<string, Map<string, number>>();
  total = 0;

  add(phase: string, way: Way, what: string): void {
    this.total += 1;
    const name = `${phase}, ${way}`;
    const row = this.#counts.get(name) ?? new Map<string, number>();
    this.#counts.set(name, row.set(what, (row.get(what) ?? 0) + 1));
  }

  toString(): string {
    const rows = [...this.#counts].sort(([one], [other]) => one.localeCompare(other));
    return rows
      .map(([name, row]) => `  ${name}: ${[...row].map((one) => one.reverse().join(' ')).join(', ')}`)
      .join('\n');
  }
}

/** A message may not come, on a busy machine, or come elsewhere: then it is tried again. */
const attemptsMax = 4;

export async function attempt({ scenario, cut }: Trial): Promise<Ended> {
  for (let number = 1; ; number += 1) {
    const ended = await runCut(scenario, cut);
    if (ended.isCut || number === attemptsMax) return ended;
  }
}

export interface SweepResult {
  readonly counts: Counts;
  readonly failures: readonly string[];
  /** Whose message never came. */
  readonly missed: readonly string[];
  /** Time was over. */
  readonly untried: number;
}

/** `atOnce` migrations at the same time, and none begun after `limitMs`. */
export async function sweep(
  trials: readonly Trial[],
  { atOnce, limitMs }: { readonly atOnce: number; readonly limitMs: number },
): Promise<SweepResult> {
  const counts = new Counts();
  const failures: string[] = [];
  const missed: string[] = [];
  const until = performance.now() + limitMs;
  const left = [...trials];
  const work = async (): Promise<void> => {
    for (;;) {
      const trial = performance.now() < until ? left.shift() : undefined;
      if (trial === undefined) return;
      const { scenario, cut } = trial;
      const name = `${scenario.name} over ${scenario.carrier}, ${scenario.before ? `behind ${textOf(scenario.before)}, ` : ''}${textOf(cut)} at ${cut.at}, ${cut.way}`;
      try {
        const { end, wasInDoubt, isCut } = await attempt(trial);
        if (!isCut) missed.push(name);
        counts.add(scenario.name, cut.way, isCut ? `${end}${wasInDoubt ? ' after doubt' : ''}` : 'not cut');
      } catch (error) {
        failures.push(`${name}: ${error instanceof Error ? (error.stack ?? '') : String(error)}`);
        counts.add(scenario.name, cut.way, 'FAILED');
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  return { counts, failures, missed, untried: left.length };
}

/** What this process has open, when there is not more than `most`, or after a while. */
export async function openDescriptors(most: number): Promise<string[]> {
  for (let number = 1; ; number += 1) {
    const open = readdirSync('/proc/self/fd').flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`)];
      } catch {
        return [];
      }
    });
    if (open.length <= most || number === 50) return open;
    await sleep(100);
  }
}
