/** A guest that does not converge is slowed down in these steps. */
const throttleFirst = 0.2;
const throttleStep = 0.15;
const throttleMost = 0.95;

/** The share of its time that it loses next; the same when it is the most. */
export function nextThrottle(share: number): number {
  return Math.min(share === 0 ? throttleFirst : share + throttleStep, throttleMost);
}
