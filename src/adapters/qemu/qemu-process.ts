/** A QEMU that we start and end, with RAM in a file of ours that outlives it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fromSystemError } from '../../errors/index.ts';
import { CheckpointError } from '../../index.ts';
import { QmpClient } from './qmp-client.ts';

export interface QemuCommand {
  /** Default `qemu-system-x86_64`. */
  readonly command?: string | undefined;
  /**
   * Arguments of QEMU without those that chkpt adds: `-m`, `-object memory-backend-…`, `-machine memory-backend=`, `-qmp`, `-S`,
   * `-incoming`.
   */
  readonly arguments: readonly string[];
  /** Size of RAM, a multiple of 4096. */
  readonly memoryBytes: number;
  /** A folder in memory for RAM and the QMP socket; default `/dev/shm`. */
  readonly folder?: string | undefined;
}

const backendId = 'ram';
const outputBytesMax = 4096;
const connectPollMs = 5;

/** Place of a machine's RAM and QMP socket; processes come and go. */
export class QemuProcess {
  readonly #command: QemuCommand;
  readonly #folder: string;
  #child: ChildProcess | undefined;
  #exited: Promise<void> = Promise.resolve();
  /** The end of what the process has said on its standard error. */
  #output = '';
  /** Generation id for the `vmgenid` device of the processes to come; undefined: the one in the arguments. */
  generation: string | undefined;

  private constructor(command: QemuCommand, folder: string) {
    this.#command = command;
    this.#folder = folder;
  }

  /** Makes the RAM, all zero, and starts no process yet. Throws `RangeError`, `CHKPT_NO_SPACE`, `CHKPT_NOT_FOUND`. */
  static async prepare(command: QemuCommand): Promise<QemuProcess> {
    const { memoryBytes, folder = '/dev/shm' } = command;
    if (!Number.isSafeInteger(memoryBytes) || memoryBytes <= 0 || memoryBytes % 4096 !== 0) {
      throw new RangeError('memoryBytes must be a positive multiple of 4096');
    }
    try {
      const own = await mkdtemp(join(folder, 'chkpt-qemu-'));
      const file = await open(join(own, 'ram'), 'wx', 0o600);
      await file.truncate(memoryBytes);
      await file.close();
      return new QemuProcess(command, own);
    } catch (error) {
      throw fromSystemError(error, `cannot make guest memory in ${folder}`, { path: folder });
    }
  }

  /** QEMU tells its guest a generation id. */
  get hasGeneration(): boolean {
    return this.#command.arguments.some(isGenerationDevice);
  }

  get output(): string {
    return this.#output.trim();
  }

  /** Starts QEMU, its guest standing still or waiting for a checkpoint, and connects to it. */
  async start(isIncoming: boolean, timeoutMs: number | undefined): Promise<QmpClient> {
    await this.stop();
    this.#output = '';
    const { command = 'qemu-system-x86_64' } = this.#command;
    const child = spawn(command, this.#arguments(isIncoming), { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child = child;
    child.stderr?.on('data', (data) => {
      this.#output = (this.#output + data).slice(-outputBytesMax);
    });
    let ended: Error | undefined;
    this.#exited = new Promise((resolve) => {
      child.once('error', (error) => {
        ended = fromSystemError(error, `cannot start ${command}`, { path: command });
        resolve();
      });
      child.once('close', (code) => {
        const said = this.output || `exit code ${code}`;
        ended ??= new CheckpointError('CHKPT_QMP_CLOSED', `${command} ended: ${said}`);
        resolve();
      });
    });
    try {
      return await this.#connect(() => ended, timeoutMs ?? 10_000);
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /** Ends the process, if there is one, and waits for its end. */
  async stop(): Promise<void> {
    const { exitCode, signalCode } = this.#child ?? {};
    if (exitCode === null && signalCode === null) this.#child?.kill('SIGKILL');
    await this.#exited;
    this.#child = undefined;
  }

  /** Ends the process and gives the memory back. */
  async remove(): Promise<void> {
    await this.stop();
    await rm(this.#folder, { recursive: true, force: true });
  }

  #arguments(isIncoming: boolean): string[] {
    const { memoryBytes } = this.#command;
    const escaped = this.#folder.replaceAll(',', ',,');
    const backend = `memory-backend-file,id=${backendId},size=${memoryBytes},mem-path=${escaped}/ram,share=on`;
    return [
      ...this.#command.arguments.map((text, index, all) =>
        this.generation !== undefined && isGenerationDevice(text, index, all)
          ? [...text.split(',').filter((part) => !part.startsWith('guid=')), `guid=${this.generation}`].join()
          : text,
      ),
      ...['-m', `${memoryBytes}b`],
      ...['-object', backend],
      ...['-machine', `memory-backend=${backendId}`],
      ...['-qmp', `unix:${escaped}/qmp,server=on,wait=off`],
      ...(isIncoming ? ['-incoming', 'defer'] : ['-S']),
    ];
  }

  async #connect(ended: () => Error | undefined, timeoutMs: number): Promise<QmpClient> {
    const path = join(this.#folder, 'qmp');
    for (const begin = performance.now(); ; await sleep(connectPollMs)) {
      const end = ended();
      if (end !== undefined) throw end;
      try {
        return await QmpClient.connect(path, { timeoutMs });
      } catch (error) {
        if (performance.now() - begin > timeoutMs) throw error;
        if (!(error instanceof CheckpointError) || !['CHKPT_NOT_FOUND', 'CHKPT_IO'].includes(error.code)) {
          await Promise.race([this.#exited, sleep(100)]);
          throw ended() ?? error;
        }
      }
    }
  }
}

function isGenerationDevice(text: string, index: number, all: readonly string[]): boolean {
  return /^-?-device$/.test(all[index - 1] ?? '') && /^(driver=)?vmgenid(,|$)/.test(text);
}
