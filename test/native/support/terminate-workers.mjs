// Terminates workers at random moments while their native threads work. Ends with the number of terminations, or crashes.
//   node terminate-workers.mjs ADDON COUNT SEED
import { Worker } from 'node:worker_threads';

const [addon, count, seed] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
let state = seed;
// Numerical Recipes' linear congruential generator: enough to pick moments, and repeatable.
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};
let started = 0;
let terminated = 0;

async function lane(index) {
  while (started < count) {
    started += 1;
    const worker = new Worker(new URL('worker-load.mjs', import.meta.url), { workerData: { addon, index } });
    worker.on('error', (error) => {
      console.error(error);
      process.exit(1);
    });
    // One in ten before it is even up.
    if (random() > 0.1) await new Promise((resolve) => worker.once('message', resolve));
    await new Promise((resolve) => setTimeout(resolve, random() * 40));
    await worker.terminate();
    terminated += 1;
  }
}

await Promise.all(Array.from({ length: 8 }, (_, index) => lane(index)));
console.log(`terminated ${terminated}`);
