/**
 * The commit protocol, explored: every order of messages, losses, copies, broken links, failing disks and restarts.
 * `CHKPT_EXPLORE=long` allows more faults at once (minutes).
 */
import { describe, expect, it } from 'vitest';
import { destinationPlaces } from '../../src/migration/protocol/destination.ts';
import { sourcePlaces } from '../../src/migration/protocol/source.ts';
import type { ProtocolOptions } from '../../src/migration/protocol/terms.ts';
import { explore } from './explorer.ts';
import { plantedFaults } from './planted-faults.ts';
import { type Budget, protocol, Violation } from './world.ts';

const isLong = process.env['CHKPT_EXPLORE'] === 'long';
/** Messages may be lost and copied, and links may break, without any limit. */
const anyNetwork = { losses: Infinity, copies: Infinity, cuts: Infinity };

const runs: readonly (readonly [string, ProtocolOptions, Budget])[] = [
  [
    'pre-copy, two restarts',
    { postcopy: false, witness: false },
    { ...anyNetwork, crashes: 2, failures: isLong ? 2 : 0 },
  ],
  [
    'pre-copy, a restart and a failure',
    { postcopy: false, witness: false },
    { ...anyNetwork, crashes: 1, failures: isLong ? 3 : 1 },
  ],
  [
    'pre-copy with a witness',
    { postcopy: false, witness: true },
    { ...anyNetwork, crashes: isLong ? 2 : 1, failures: isLong ? 2 : 0 },
  ],
  [
    'post-copy',
    { postcopy: true, witness: false },
    { ...anyNetwork, crashes: isLong ? 2 : 1, failures: isLong ? 2 : 0 },
  ],
];

describe('in every world that can be reached', () => {
  const reached = new Set<string>();

  it.each(runs)(
    '%s: one owner, nothing lost, a good end',
    { timeout: 3_600_000 },
    (name, options, budget) => {
      const { worlds, steps, settled, places } = explore(budget, protocol(options));
      for (const place of places) reached.add(place);
      console.log(`${name}: ${worlds} worlds, ${steps} steps, ${settled} settled`);
      expect(settled).toBeGreaterThan(1000);
    },
  );

  it('every state of both ends was there', () => {
    const all = [
      ...sourcePlaces.map((at) => `source ${at}`),
      ...destinationPlaces.map((at) => `destination ${at}`),
    ];
    expect(all.filter((place) => !reached.has(place))).toEqual([]);
  });
});

describe('the explorer finds', () => {
  it.each(Object.entries(plantedFaults))('%s', (_, rules) => {
    expect(() => {
      // The small search first: most are found there.
      for (const failures of [0, 1]) explore({ ...anyNetwork, crashes: 1, failures }, rules);
    }).toThrow(Violation);
  });
});
