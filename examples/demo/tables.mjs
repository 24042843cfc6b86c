/** What the demo measured, as tables. Sizes are of this run, rates of this computer. */
import { availableParallelism } from 'node:os';
import { bar, duration, gibibytesPerSecond, head, heading, remark, row, size, whole } from './terminal.mjs';

const pageBytes = 4096;
const barWidth = 24;

export function printTables({ ran, saved, verified, loaded, again, memoryBytes }) {
  const { counts, bytes } = verified.result;
  printPages(counts, memoryBytes, bytes);
  printRates({ save: saved, verify: verified, load: loaded, 'load again': again }, memoryBytes);
  if (again !== undefined)
    remark('the first load also gets its memory from the system; the second one has it');
  const stopped = duration(ran.pauseMs + saved.result.elapsedMs);
  remark(`the guest stood still for ${stopped}: ${duration(ran.pauseMs)} until nothing wrote, then the save`);
}

function printPages(counts, memoryBytes, checkpointBytes) {
  const widths = [14, 12, 12, 3];
  const classes = [
    ['zero', counts.zeroPages, 'not stored'],
    ['fill', counts.fillPages, 'one word each'],
    ['same', counts.samePages, 'as an earlier page'],
    ['stored', counts.storedPages, `${ratio(counts.storedPages * pageBytes, counts.encodedBytes)} with LZ4`],
  ];
  heading('pages');
  for (const [name, pages, note] of classes) {
    const share = pages / counts.pages;
    row(
      [name, whole(pages), `${(100 * share).toFixed(1)} %`, '', `${bar(share, barWidth)}  ${note}`],
      [...widths, 0],
    );
  }
  row(['memory', whole(counts.pages), size(memoryBytes)], widths);
  row(['checkpoint', '', size(checkpointBytes), '', ratio(memoryBytes, checkpointBytes)], [...widths, 0]);
}

function printRates(measured, memoryBytes) {
  const widths = [10, 12, 14, 18, 22];
  heading(`rates, ${availableParallelism()} CPUs`);
  head(['', 'time', 'guest memory', 'event loop p99', 'memory beyond guest'], widths);
  for (const [name, step] of Object.entries(measured)) {
    if (step === undefined) continue;
    const { elapsedMs, loopDelayMs, peakBytes } = step;
    const rate = gibibytesPerSecond(memoryBytes, elapsedMs);
    row([name, duration(elapsedMs), rate, `${loopDelayMs.toFixed(2)} ms late`, size(peakBytes)], widths);
  }
}

function ratio(before, after) {
  return `${(before / after).toFixed(2)} : 1`;
}
