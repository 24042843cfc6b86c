/** Runs the real command line as a child process. */
import { type ChildProcess, spawn } from 'node:child_process';
import { buildCommandLine } from './dist.ts';

/** Path of the built `main.js`. */
export const mainPath = buildCommandLine();

export interface CliResult {
  /** `null` when a signal ended the process. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface CliOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string | Uint8Array;
  /** Descriptor in place of the pipe. */
  readonly stdout?: number;
  /** User to run as. */
  readonly uid?: number;
  /** Called with the child as soon as it runs; standard input stays open when there is no `input`. */
  readonly onStart?: (child: ChildProcess) => void | Promise<void>;
}

/** The environment of the tests, without what changes the output. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const environment = { ...process.env };
  for (const name of ['NO_COLOR', 'FORCE_COLOR', 'CHKPT_DEBUG', 'CHKPT_NO_NATIVE', 'NODE_OPTIONS']) {
    delete environment[name];
  }
  return environment;
}

/** Starts `chkpt` and waits for its end. */
export async function chkpt(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const { cwd, env, input, stdout, uid, onStart } = options;
  const child = spawn(process.execPath, [mainPath, ...args], {
    cwd,
    uid,
    env: { ...cleanEnvironment(), ...env },
    stdio: ['pipe', stdout ?? 'pipe', 'pipe'],
    // A command that hangs must not outlive the tests.
    timeout: 50_000,
    killSignal: 'SIGKILL',
  });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout?.on('data', (piece: Buffer) => out.push(piece));
  child.stderr?.on('data', (piece: Buffer) => err.push(piece));
  child.stdin?.on('error', () => undefined);
  if (onStart === undefined || input !== undefined) child.stdin?.end(input ?? '');
  const ended = new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve([code, signal]));
  });
  try {
    await onStart?.(child);
  } catch (error) {
    child.kill('SIGKILL');
    await ended;
    throw error;
  }
  const [code, signal] = await ended;
  return { code, signal, stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString() };
}

/** Runs `chkpt` and expects success. */
export async function chkptOk(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const result = await chkpt(args, options);
  if (result.code === 0) return result;
  throw new Error(`chkpt ${args.join(' ')} ended with ${result.code ?? result.signal}: ${result.stderr}`);
}

/** The JSON document that `chkpt … --json` prints; fails when there is anything else on either stream. */
// biome-ignore lint/suspicious/noExplicitAny: a document of any shape
export async function chkptJson(args: readonly string[], options: CliOptions = {}): Promise<any> {
  const { stdout, stderr } = await chkptOk([...args, '--json'], options);
  if (stderr !== '') throw new Error(`--json, and yet on standard error: ${stderr}`);
  return JSON.parse(stdout.toString());
}

/** Waits until `condition` holds, looking every millisecond. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`waited 30 s in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
