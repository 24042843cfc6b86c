/**
 * A lease in a file that all hosts share: whoever lets a guest run takes it first, and gives it back when the guest stands still. Two that
 * have it at once are caught, whatever they believe of each other. Each lease has the next number.
 *
 * Plain JavaScript: processes that are killed use it, too.
 */
import { appendFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';

/**
 * Takes the lease of the machine whenever it runs. Whoever finds it taken by one that lives says so in `PATH.violations` and runs all
 * the same.
 *
 * @param {{ pause(): Promise<void>, resume(): Promise<void> }} vm
 * @param {string} path
 * @param {string} name
 */
export function runUnderLease(vm, path, name) {
  const pause = vm.pause.bind(vm);
  const resume = vm.resume.bind(vm);
  let isHeld = false;
  vm.resume = async () => {
    if (!isHeld) take(path, name);
    isHeld = true;
    await resume();
  };
  vm.pause = async () => {
    await pause();
    if (isHeld) rmSync(path, { force: true });
    isHeld = false;
  };
}

/**
 * Who has run a guest, in this order; and who has while another did.
 *
 * @param {string} path
 */
export function leasesOf(path) {
  const linesOf = (/** @type {string} */ file) => {
    try {
      return readFileSync(file, 'utf8').split('\n').filter(Boolean);
    } catch {
      return [];
    }
  };
  return { taken: linesOf(`${path}.taken`), violations: linesOf(`${path}.violations`) };
}

function take(path, name) {
  for (;;) {
    try {
      writeFileSync(path, `${process.pid} ${name}`, { flag: 'wx' });
      appendFileSync(`${path}.taken`, `${name}\n`);
      return;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    const holder = readFileSync(path, 'utf8');
    if (isAlive(Number(holder.split(' ')[0]))) {
      appendFileSync(`${path}.violations`, `${name} while ${holder}\n`);
      return;
    }
    rmSync(path, { force: true });
  }
}

/** One that was killed and not waited for does not live. */
function isAlive(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return !/\) [ZX] /.test(stat);
  } catch {
    return false;
  }
}
