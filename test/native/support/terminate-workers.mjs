// Terminates workers at random moments while their native threads work. Ends with the number of terminations, or crashes.
//   node terminate-workers.mjs ADDON COUNT SEED
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

const [addon, count, seed] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
let state = seed;
// Numerical Recipes' linear congruential generator: enough to pick moments, and repeatable.
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};
// Files of workers that ended before they could remove the name.
const folder = mkdtempSync(join(tmpdir(), 'chkpt-workers-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
let started = 0;
let terminated = 0;

async function lane(index) {
  while (started < count) {
    started += 1;
    const worker = new Worker(new URL('worker-load.mjs', import.meta.url), {
      workerData: { addon, index, folder },
    });
    worker.on('error', (error) => {
      console.error(error);
      process.exit(1);
    });
    // One in ten before it is even up; one in ten when it has done all that it does once, and does it again.
    const moment = random();
    const awaited = moment < 0.1 ? undefined : moment < 0.9 ? 'up' : 'once';
    if (awaited !== undefined) {
      await new Promise((resolve) => worker.on('message', (message) => message === awaited && resolve()));
    }
    await new Promise((resolve) => setTimeout(resolve, random() * 60));
    await worker.terminate();
    terminated += 1;
  }
}

await Promise.all(Array.from({ length: 8 }, (_, index) => lane(index)));
console.log(`terminated ${terminated}`);
