/** When a guest is stopped. */
import { describe, expect, it } from 'vitest';
import { Convergence } from '../../src/migration/convergence.ts';

const options = { downtimeTargetMs: 50, fixedMs: 4, patience: 3, roundsMax: 100 } as const;
const mib = 2 ** 20;

/** A link of `rate` bytes per ms, and a guest that dirties `dirty` pages per ms of 4096 bytes each; `costMs` for each round. */
function simulate(
  rate: number,
  dirty: number,
  costMs = 2,
  limit = 60,
): { decision: string; rounds: number; downtimeMs: number } {
  const convergence = new Convergence(options);
  let pages = 262_144;
  for (let round = 0; round < limit; round += 1) {
    const bytes = pages * 4096;
    const ms = costMs + bytes / rate;
    const dirtyPages = Math.min(262_144, Math.round(dirty * ms));
    const facts = { round, pages, bytes, ms, dirtyPages };
    const forecast = convergence.learn(facts);
    const decision = convergence.decide(facts, forecast);
    if (decision !== 'goOn')
      return { decision, rounds: round + 1, downtimeMs: costMs + (dirtyPages * 4096) / rate };
    pages = dirtyPages;
  }
  return { decision: 'goOn', rounds: limit, downtimeMs: 0 };
}

describe('a guest', () => {
  it.each([
    ['that stands still', 0],
    ['that dirties a tenth of the link', 0.1],
    ['that dirties half of the link', 0.5],
    ['that dirties nine tenths of the link', 0.9],
  ])('%s is stopped, and not for longer than was asked', (_, share) => {
    const rate = 100 * 1024; // 100 MiB/s
    const { decision, downtimeMs } = simulate(rate, (share * rate) / 4096);
    expect(decision).toBe('stop');
    expect(downtimeMs).toBeLessThanOrEqual(options.downtimeTargetMs + 1);
  });

  it('that dirties more than the link takes is told to be stalled, and not stopped', () => {
    const rate = 100 * 1024;
    expect(simulate(rate, (1.2 * rate) / 4096)).toMatchObject({ decision: 'stalled' });
  });

  it('is not stopped when a round alone costs more than the downtime', () => {
    expect(simulate(100 * 1024, 1, 80).decision).not.toBe('stop');
  });
});

it('the forecast says how many rounds are left', () => {
  const convergence = new Convergence(options);
  const facts = { round: 0, pages: 262_144, bytes: 1024 * mib, ms: 10_000, dirtyPages: 26_214 };
  const { rate, dirtyRate, downtimeMs, converges, roundsLeft } = convergence.learn(facts);
  expect(rate).toBeCloseTo(107_374_182.4, -1);
  expect(dirtyRate / rate).toBeCloseTo(0.1, 3);
  expect(downtimeMs).toBeCloseTo(1004, 0);
  expect(converges).toBe(true);
  // 1000 ms, 100 ms, 10 ms
  expect(roundsLeft).toBe(2);
});
