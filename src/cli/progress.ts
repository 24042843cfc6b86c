/**
 * The progress bar on a terminal: one line on standard error, redrawn at most ten times a second and cleared at the end.
 *
 * Whoever works tells how far it is as often as it likes; after the first time a timer draws. Rates are those of the last few seconds.
 */
import type { CommonOptions } from './common-options.ts';
import { formatBytes, formatClock, formatRate, formatRatio, ratioOf } from './units.ts';

/** How far an operation is, bytes of guest memory. */
export interface ProgressView {
  readonly phase: 'state' | 'memory' | 'commit';
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Bytes that it took in the checkpoint so far, when that is known. */
  readonly writtenBytes?: number | undefined;
}

export interface Progress {
  update(view: ProgressView): void;
  /** Clears the line. Harmless when called twice. */
  stop(): void;
}

/** The terminal, as far as it matters. */
export interface ProgressTerminal {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  write(text: string): unknown;
}

const redrawMs = 100;
const rateWindowMs = 3000;
const barColumnsMax = 30;
const barColumnsMin = 8;

/** A bar on a terminal, nothing elsewhere. `verb` says what is going on: `saving`. */
export function createProgress(verb: string, { json, quiet }: CommonOptions): Progress {
  const isPlain = process.env['TERM'] === 'dumb';
  if (process.stderr.isTTY !== true || isPlain || json || quiet) {
    return { update: () => undefined, stop: () => undefined };
  }
  return new ProgressBar(verb, process.stderr, hasColor());
}

/** https://no-color.org: any value but the empty one. */
function hasColor(): boolean {
  return (process.env['NO_COLOR'] ?? '') === '';
}

class ProgressBar implements Progress {
  readonly #verb: string;
  readonly #terminal: ProgressTerminal;
  readonly #color: boolean;
  readonly #meter = new RateMeter();
  readonly #timer: NodeJS.Timeout;
  #view: ProgressView = { phase: 'state', doneBytes: 0, totalBytes: 0 };
  #isDrawn = false;

  constructor(verb: string, terminal: ProgressTerminal, color: boolean) {
    this.#verb = verb;
    this.#terminal = terminal;
    this.#color = color;
    this.#timer = setInterval(() => this.#draw(), redrawMs);
    // A bar alone is no reason to stay.
    this.#timer.unref();
  }

  update(view: ProgressView): void {
    // At once, so that work of a moment is seen too.
    const isFirst = view.phase === 'memory' && this.#view.phase !== 'memory';
    this.#view = view;
    if (isFirst) this.#draw();
  }

  stop(): void {
    clearInterval(this.#timer);
    if (this.#isDrawn) this.#terminal.write('\r\u001b[K');
    this.#isDrawn = false;
  }

  #draw(): void {
    const rate = this.#meter.rate(performance.now(), this.#view.doneBytes);
    const line = progressLine(this.#verb, this.#view, rate, (this.#terminal.columns ?? 80) - 1, this.#color);
    this.#terminal.write(`\r${line}\u001b[K`);
    this.#isDrawn = true;
  }
}

/** Bytes per second over the last few seconds. */
export class RateMeter {
  #samples: readonly (readonly [timeMs: number, bytes: number])[] = [];

  /** Takes a sample. Undefined while there is nothing to compare it with. */
  rate(timeMs: number, bytes: number): number | undefined {
    const recent = this.#samples.filter(([sampleMs]) => timeMs - sampleMs <= rateWindowMs);
    this.#samples = [...recent, [timeMs, bytes]];
    const [firstMs, firstBytes] = recent[0] ?? [timeMs, bytes];
    return timeMs > firstMs ? (1000 * (bytes - firstBytes)) / (timeMs - firstMs) : undefined;
  }
}

/**
 * One line of at most `columns` characters (escape sequences not counted): verb, bar, share, bytes, rate, time to go, ratio.
 * What does not fit is left out, the bar first.
 */
export function progressLine(
  verb: string,
  view: ProgressView,
  rate: number | undefined,
  columns: number,
  color: boolean,
): string {
  const { doneBytes, totalBytes, phase } = view;
  const share = totalBytes === 0 ? 0 : Math.min(doneBytes / totalBytes, 1);
  const texts = phase === 'memory' ? memoryTexts(view, share, rate) : [phaseTexts[phase]];
  let tail = texts.join('  ');
  while (verb.length + 1 + tail.length > columns && texts.length > 1) {
    texts.pop();
    tail = texts.join('  ');
  }
  const barColumns = Math.min(columns - verb.length - tail.length - 5, barColumnsMax);
  if (barColumns < barColumnsMin) return `${verb} ${tail}`.slice(0, Math.max(columns, 0));
  return `${verb} [${bar(share, barColumns, color)}]  ${tail}`;
}

const phaseTexts = { state: 'state', commit: 'flushing' } as const;

function memoryTexts(
  { doneBytes, totalBytes, writtenBytes }: ProgressView,
  share: number,
  rate: number | undefined,
): string[] {
  const percent = `${Math.floor(100 * share)} %`.padStart(5);
  const texts = [percent, `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`];
  if (rate === undefined || rate <= 0) return texts;
  texts.push(formatRate(rate), `ETA ${formatClock((1000 * (totalBytes - doneBytes)) / rate)}`);
  const ratio = ratioOf(doneBytes, writtenBytes ?? 0);
  if (ratio !== null) texts.push(formatRatio(ratio));
  return texts;
}

function bar(share: number, columns: number, color: boolean): string {
  const done = Math.floor(share * columns);
  const [full, rest] = ['='.repeat(done), ' '.repeat(columns - done)];
  return color ? `\u001b[32m${full}\u001b[39m${rest}` : `${full}${rest}`;
}
