/**
 * Runs asynchronous calls one after the other, in the order in which they were made: an object whose methods
 * go through one never has two of them under way, also when its user does not await. A call that fails does
 * not stop the next.
 */
export class CallQueue {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `action` after every call before it has ended, and resolves or rejects as it does. */
  run<T>(action: () => Promise<T>): Promise<T> {
    const result = this.#last.then(action);
    this.#last = result.catch(() => undefined);
    return result;
  }
}
