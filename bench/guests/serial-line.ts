/** The serial line of a guest: what it says, line by line, and a way to wait for it. */
export class SerialLine {
  readonly lines: string[] = [];
  readonly #send: (text: string) => void;
  #current = '';
  #changed: () => void = () => {};

  constructor(send: (text: string) => void) {
    this.#send = send;
  }

  /** What the guest has said. */
  take(text: string): void {
    for (const character of text) this.#take(character);
  }

  /** The first line from `from` on that matches; rejects after `timeoutMs`. */
  async waitFor(pattern: RegExp, from = 0, timeoutMs = 120_000): Promise<string> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const line = this.lines.slice(from).find((text) => pattern.test(text));
      if (line !== undefined) return line;
      const rest = deadline - Date.now();
      if (rest <= 0)
        throw new Error(`the guest never said ${pattern}; last: ${this.lines.slice(-5).join(' | ')}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.min(rest, 1000));
        this.#changed = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Runs a command in the guest's shell and gives the lines up to its DONE. */
  async command(text: string, timeoutMs?: number): Promise<string[]> {
    const from = this.lines.length;
    this.#send(`${text}\n`);
    await this.waitFor(/^DONE /, from, timeoutMs);
    return this.lines.slice(from).filter((line) => !/^(TICK|DONE) /.test(line));
  }

  #take(character: string): void {
    if (character !== '\n') {
      this.#current += character === '\r' ? '' : character;
      return;
    }
    this.lines.push(this.#current);
    this.#current = '';
    this.#changed();
  }
}
