/**
 * Links cut at every boundary between two messages and at every byte of their headers, in every way, in both directions, in each phase. Exactly one
 * host runs the guest afterwards, both say which, it arrived as it stopped, and nothing stays open.
 *
 * One cut for each kind of message, direction and way; `CHKPT_CUTS=all` (`npm run test:cuts`) for all of them, `CHKPT_CUTS_MINUTES` at most,
 * `CHKPT_CUTS_SEED` for another choice, `CHKPT_CUTS_ONLY` for those whose name has this text.
 */
import { existsSync } from 'node:fs';
import { beforeAll, expect, it, vi } from 'vitest';
import type { Place } from './cuts/cut-proxy.ts';
import { runCut } from './cuts/one-cut.ts';
import { scenarios } from './cuts/scenarios.ts';
import {
  attempt,
  cellOf,
  openDescriptors,
  placesOf,
  sampleOf,
  shuffled,
  sweep,
  type Trial,
  trialsOf,
} from './cuts/sweep.ts';

// A silence that is noticed later is the same silence.
vi.mock('../../src/migration/wire/deadlines.ts', () => ({ aliveMs: 300, silenceMs: 1800, joinMs: 1800 }));

const isLong = process.env['CHKPT_CUTS'] === 'all';
const minutes = Number(process.env['CHKPT_CUTS_MINUTES'] ?? 30);
const seed = Number(process.env['CHKPT_CUTS_SEED'] ?? 1);
const only = process.env['CHKPT_CUTS_ONLY'] ?? '';

const hasUserfault = existsSync('/dev/userfaultfd');
if (!hasUserfault) console.log('post-copy is not cut: no /dev/userfaultfd');
const possible = scenarios.filter(({ send }) => hasUserfault || send?.strategy !== 'postcopy');

/** Often overtaken by pages that the guest has touched: too rare for a sample. */
const lateEnds: readonly string[] = ['streamEnd of late pages', 'got of late pages'];

const named = (text: string): Place => {
  const [channel = '', direction = '', ...kind] = text.split(' ');
  return { channel, direction, kind: kind.join(' ') } as Place;
};

/** What is loaded and made once is there before anything is counted. */
let openBefore = 0;
beforeAll(async () => {
  await runCut(possible[0] as (typeof possible)[0], undefined);
  openBefore = (await openDescriptors(Number.POSITIVE_INFINITY)).length;
});

/** The other connections of the link are whole, and say so. */
it.concurrent.each([
  ['rounds', 'pages toDestination data of first', 16, 'hole'],
  ['post-copy', 'pages toDestination data of late pages', 16, 'hole'],
  ['resume', 'pages toDestination join', 5, 'fin'],
] as const)(
  '%s: what a connection swallows behind %s %d (%s) comes over another one',
  async (name, where, at, way) => {
    const place = named(where);
    const scenario = possible.find(
      (one) => one.name === name && one.phase(place) && (name === 'rounds' || one.isUnwatched === true),
    );
    if (scenario === undefined) return console.log('skipped: no post-copy here');
    const ended = await attempt({ scenario, cut: { ...place, at, way } });
    expect(ended).toMatchObject({ end: 'moved', wasInDoubt: false, isCut: true });
  },
);

it.concurrent('a link may be cut anywhere, in any way', { timeout: minutes * 60_000 + 120_000 }, async () => {
  const trials: Trial[] = [];
  const passed = await Promise.all(possible.map(placesOf));
  for (const [i, scenario] of possible.entries()) trials.push(...trialsOf(scenario, passed[i] ?? []));
  const wanted = trials.filter((trial) => cellOf(trial).includes(only) || trial.scenario.name.includes(only));
  // Who has to wait for a silence to be noticed begins first.
  const chosen = isLong
    ? shuffled(wanted, seed)
    : sampleOf(
        wanted.filter(({ cut }) => cut.way !== 'silence' && !lateEnds.includes(cut.kind)),
        seed,
      ).sort((one, other) => Number(other.cut.way === 'hole') - Number(one.cut.way === 'hole'));
  const { counts, failures, missed, untried } = await sweep(chosen, {
    atOnce: isLong ? 32 : 60,
    limitMs: minutes * 60_000,
  });
  console.log(
    `${counts.total} of ${wanted.length} cuts, ${new Set(chosen.map(cellOf)).size} cells, seed ${seed}\n${counts}`,
  );
  if (untried > 0) console.log(`${untried} were not tried: time was over`);
  if (missed.length > 0) console.log(`messages that did not come:\n${missed.join('\n')}`);
  expect(failures).toEqual([]);
  // Pages that a guest touches overtake those that would come late, and a guest that gets less of a processor needs fewer rounds.
  const unexpected = missed.filter((name) => !name.includes('late pages'));
  expect(unexpected.length).toBeLessThanOrEqual(chosen.length / (isLong ? 50 : 20));
  expect(new Set(trials.map(cellOf)).size).toBeGreaterThanOrEqual(hasUserfault ? 100 : 80);
  const left = await openDescriptors(openBefore);
  expect(left.length, left.join('\n')).toBeLessThanOrEqual(openBefore);
});
