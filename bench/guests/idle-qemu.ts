/** A QEMU whose guest never runs: its memory is a RAM image, or waits for one. What a migration of it costs is what its pages cost. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { QmpClient as Client } from '../../src/adapters/qemu/index.ts';

const startMs = 20_000;

export class IdleQemu {
  readonly qmp: Client;
  readonly #process: ChildProcess;

  private constructor(process: ChildProcess, qmp: Client) {
    this.#process = process;
    this.qmp = qmp;
  }

  /** `image`: a file that becomes its memory, shared; without one it waits for a migration into memory of its own. */
  static async start(
    connect: (path: string) => Promise<Client>,
    socket: string,
    memoryBytes: number,
    image?: string,
  ): Promise<IdleQemu> {
    const size = `size=${memoryBytes}`;
    const backend =
      image === undefined
        ? `memory-backend-ram,id=ram,${size}`
        : `memory-backend-file,id=ram,${size},mem-path=${image},share=on`;
    const started = spawn(
      'qemu-system-x86_64',
      [
        ...['-nodefaults', '-display', 'none', '-accel', 'tcg', '-S', '-m', `${memoryBytes / 2 ** 20}M`],
        ...[
          '-object',
          backend,
          '-machine',
          'pc,memory-backend=ram',
          '-qmp',
          `unix:${socket},server=on,wait=off`,
        ],
        ...(image === undefined ? ['-incoming', 'defer'] : []),
      ],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    );
    const deadline = performance.now() + startMs;
    while (!existsSync(socket)) {
      if (started.exitCode !== null || performance.now() > deadline) throw new Error('QEMU does not start');
      await sleep(20);
    }
    return new IdleQemu(started, await connect(socket));
  }

  /** CPU time of all its threads, seconds. */
  cpuSeconds(): number {
    const stat = readFileSync(`/proc/${this.#process.pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const ticksPerSecond = 100;
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  }

  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    if (this.#process.exitCode === null && this.#process.signalCode === null)
      await once(this.#process, 'exit');
  }
}
