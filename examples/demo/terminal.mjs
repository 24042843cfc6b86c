/**
 * What the demo draws with: colour and a progress bar on a terminal, plain lines everywhere else.
 *
 * Colour follows NO_COLOR (https://no-color.org) and whether standard output is a terminal.
 */
const { stdout } = process;
const isTerminal = stdout.isTTY === true;
const hasColour = isTerminal && (process.env.NO_COLOR ?? '') === '' && process.env.TERM !== 'dumb';

const style = (code) => (text) => (hasColour ? `\x1b[${code}m${text}\x1b[0m` : String(text));

export const bold = style('1');
export const dim = style('2');
export const red = style('1;31');
export const green = style('32');
export const cyan = style('36');

const nameWidth = 10;
const barWidth = 28;

/** 80 columns, more where the terminal has them, but no more than is good to read. */
export const columns = Math.min(Math.max(stdout.columns ?? 80, 80), 96);

export function line(text = '') {
  stdout.write(`${text}\n`);
}

/** One step of the story: its name, what happened, how long it took. */
export function step(name, text, milliseconds) {
  clearProgress();
  const time = milliseconds === undefined ? '' : duration(milliseconds);
  const gap = Math.max(1, columns - 4 - nameWidth - text.length - time.length);
  line(`  ${cyan(name.padEnd(nameWidth))}${text}${' '.repeat(gap)}${dim(time)}`);
}

/** Something that was proved, or not. */
export function verdict(isTrue, text) {
  clearProgress();
  line(`  ${isTrue ? green('✔') : red('✘')} ${isTrue ? text : red(text)}`);
}

/** A line under a line, for what it means. */
export function remark(text) {
  line(`    ${dim(text)}`);
}

/** A heading with a rule behind it. */
export function heading(text) {
  line();
  line(`  ${bold(text)} ${dim('─'.repeat(Math.max(0, columns - 5 - text.length)))}`);
}

/** Draws how far a step is; call it as often as you like. Nothing where there is no terminal. */
export function progress(name, { memoryBytesDone, memoryBytes, elapsedMs }) {
  if (!isTerminal || memoryBytes === 0) return;
  const share = memoryBytesDone / memoryBytes;
  const rate = elapsedMs > 0 ? gibibytesPerSecond(memoryBytesDone, elapsedMs) : '';
  const percent = `${Math.floor(100 * share)} %`.padStart(6);
  stdout.write(`\r\x1b[K  ${cyan(name.padEnd(nameWidth))}${bar(share, barWidth)}${percent}   ${dim(rate)}`);
}

export function clearProgress() {
  if (isTerminal) stdout.write('\r\x1b[K');
}

/** A bar of eighths, so that small shares are seen too. */
export function bar(share, width) {
  const eighths = Math.round(Math.min(Math.max(share, 0), 1) * width * 8);
  const full = '█'.repeat(eighths >> 3);
  const part = eighths % 8 === 0 ? '' : ' ▏▎▍▌▋▊▉'[eighths % 8];
  return green(full + part) + dim('·'.repeat(width - full.length - part.length));
}

/** Rows of a table: the first cell to the left, the others to the right in columns of the given widths. */
export function row(cells, widths) {
  const [first, ...rest] = cells.map((cell, index) =>
    index === 0 ? String(cell).padEnd(widths[0]) : String(cell).padStart(widths[index]),
  );
  line(`  ${cyan(first)}${rest.join('')}`);
}

export function head(cells, widths) {
  const [first, ...rest] = cells;
  line(`  ${dim(first.padEnd(widths[0]) + rest.map((cell, i) => cell.padStart(widths[i + 1])).join(''))}`);
}

export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes >= 1024 ** 3) return `${(bytes / 1024 ** 3).toFixed(2)} GiB`;
  if (bytes >= 1024 ** 2) return `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
  return `${(bytes / 1024).toFixed(1)} KiB`;
}

export function whole(count) {
  return count.toLocaleString('en-US');
}

export function duration(milliseconds) {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(2)} s`;
  return `${milliseconds.toFixed(milliseconds < 10 ? 2 : 0)} ms`;
}

export function gibibytesPerSecond(bytes, milliseconds) {
  return `${(bytes / 1024 ** 3 / (milliseconds / 1000)).toFixed(2)} GiB/s`;
}
