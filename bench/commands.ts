/** Whole processes as contenders: their time is from the call that starts them to their exit. */
import { execFile, spawn } from 'node:child_process';
import { performance } from 'node:perf_hooks';
import type { Cost } from './interleave.ts';

/** Runs a command to its end. Rejects when it fails, with the end of what it wrote to stderr. */
export function timeCommand(command: string, args: readonly string[]): Promise<Cost> {
  return new Promise((resolve, reject) => {
    const begin = performance.now();
    const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let message = '';
    child.stderr.on('data', (text: Buffer) => {
      message = (message + text.toString('utf8')).slice(-1000);
    });
    let seconds = 0;
    child.on('error', reject);
    child.on('exit', () => {
      seconds = (performance.now() - begin) / 1000;
    });
    child.on('close', (code, signal) => {
      if (code === 0) resolve({ seconds });
      else reject(new Error(`${command} ended with ${signal ?? code}: ${message.trim()}`));
    });
  });
}

/** The version a command tells, or `undefined` where there is no such command. */
export function commandVersion(command: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    execFile(command, ['--version'], (error, stdout) => {
      resolve(error === null ? (/v?\d+\.\d+(\.\d+)?/.exec(stdout)?.[0] ?? 'unknown') : undefined);
    });
  });
}
