/** Which processes count as alive. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, expect, test, vi } from 'vitest';
import { hostEnvironment } from '../../src/store/index.ts';

const { processes } = hostEnvironment;

afterEach(() => {
  vi.restoreAllMocks();
});

test('this process and its children are alive until they end', async () => {
  expect(processes.pid).toBe(process.pid);
  expect(processes.isAlive(process.pid)).toBe(true);
  const child = spawn('sleep', ['60']);
  expect(processes.isAlive(child.pid ?? 0)).toBe(true);
  child.kill();
  await once(child, 'exit');
  expect(processes.isAlive(child.pid ?? 0)).toBe(false);
  expect(processes.isAlive(spawnSync('true').pid)).toBe(false);
});

test('a process that may not be signalled is alive', () => {
  vi.spyOn(process, 'kill').mockImplementation(() => {
    throw Object.assign(new Error('kill EPERM'), { code: 'EPERM' });
  });
  expect(processes.isAlive(1)).toBe(true);
});

test('this process started before now and after the machine', () => {
  expect(processes.startedMs).toBeLessThanOrEqual(Date.now());
  expect(processes.startedMs).toBeGreaterThan(Date.now() - (process.uptime() + 60) * 1000);
});
