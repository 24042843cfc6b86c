/** A host of a migration as a process of its own: it says what happens, one JSON document to a line of its standard output. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

/** A host that says nothing for so long hangs. */
const patienceMs = 60_000;

export class HostProcess {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #said: Record<string, unknown>[] = [];
  #waiting: (() => void)[] = [];
  readonly exited: Promise<NodeJS.Signals | null>;

  constructor(program: string, words: readonly string[]) {
    this.#child = spawn(program, words, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.exited = new Promise((resolve) => this.#child.once('close', (_, signal) => resolve(signal)));
    // One that is gone hears nothing.
    this.#child.stdin.on('error', () => undefined);
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      this.#said.push(JSON.parse(line));
      for (const wake of this.#waiting.splice(0)) wake();
    });
  }

  /** The newest thing it has said of that name. */
  heard(name: string): unknown {
    return this.#said.findLast((one) => name in one)?.[name];
  }

  /** Waits until it has said one of these. */
  async says(...names: readonly string[]): Promise<unknown> {
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), patienceMs);
    try {
      return await this.#says(names);
    } finally {
      clearTimeout(timer);
    }
  }

  async #says(names: readonly string[]): Promise<unknown> {
    for (let isOver = false; ; ) {
      const name = names.find((one) => this.heard(one) !== undefined);
      if (name !== undefined) return this.heard(name);
      if (isOver) throw new Error(`ended before it said ${names.join(' or ')}`);
      const more = new Promise<boolean>((resolve) => {
        this.#waiting.push(() => resolve(false));
      });
      isOver = await Promise.race([more, this.exited.then(() => true)]);
    }
  }

  tell(word: string): void {
    this.#child.stdin.write(`${word}\n`);
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.exited;
  }
}
