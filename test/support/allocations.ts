/** Watches how much memory JavaScript asks for at once, by standing in front of the constructors. */

/** Runs `action` and resolves to the largest number of bytes that one ArrayBuffer or Uint8Array was made with. */
export async function largestAllocation(action: () => Promise<unknown>): Promise<number> {
  return (await allocations(action)).largest;
}

/** The same, and the sum over all of them. */
export async function allocations(
  action: () => Promise<unknown>,
): Promise<{ readonly largest: number; readonly total: number }> {
  const { ArrayBuffer: plainBuffer, Uint8Array: plainArray } = globalThis;
  let largest = 0;
  let total = 0;
  const watch = <T extends object>(target: T): T =>
    new Proxy(target, {
      construct(original, parameters, newTarget) {
        if (typeof parameters[0] === 'number') {
          largest = Math.max(largest, parameters[0]);
          total += parameters[0];
        }
        return Reflect.construct(original as never, parameters, newTarget);
      },
    });
  globalThis.ArrayBuffer = watch(plainBuffer);
  globalThis.Uint8Array = watch(plainArray);
  try {
    await action();
  } finally {
    globalThis.ArrayBuffer = plainBuffer;
    globalThis.Uint8Array = plainArray;
  }
  return { largest, total };
}
