/** QEMU guests for tests and measurements: a Linux with its RAM in a memfd, or a few instructions that stamp pages. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { corpusFolder, linuxFolder, whyNoCorpusGuest, whyNoLinux } from './linux.ts';
import { unlessRequired } from './required.ts';
import { SerialLine } from './serial-line.ts';

export const qemuCommand = 'qemu-system-x86_64';

/** Why QEMU cannot run here; undefined when it can. */
export function whyNoQemu(): string | undefined {
  try {
    execFileSync(qemuCommand, ['--version'], { stdio: 'pipe' });
    return undefined;
  } catch {
    return unlessRequired(`no ${qemuCommand}: apt-get install qemu-system-x86`);
  }
}

/** Why there can be no Linux in it. */
export function whyNoQemuLinux(): string | undefined {
  return whyNoQemu() ?? whyNoLinux('amd64');
}

/** Why the guest that works cannot be. */
export function whyNoQemuCorpus(): string | undefined {
  return whyNoQemu() ?? whyNoCorpusGuest();
}

export interface LinuxOptions {
  /** `shell` (default): a prompt on the serial line. `corpus`: a Debian that works by itself, then says CORPUS-READY. */
  readonly guest?: 'shell' | 'corpus';
  /** For the sockets. */
  readonly folder: string;
  readonly name: string;
  readonly memoryBytes: number;
  /** Arguments of `-incoming`. */
  readonly incoming?: string;
  /** Of the memory-backend, default `share=on`. */
  readonly backend?: string;
  /** Further arguments. */
  readonly extra?: readonly string[];
}

/** Arguments of a QEMU with a Linux, a memfd and a serial line. */
export function linuxArguments(options: LinuxOptions): string[] {
  const { folder, name, memoryBytes, incoming, backend = 'share=on', guest = 'shell' } = options;
  return [
    ...['-nodefaults', '-display', 'none', '-no-reboot', '-cpu', 'qemu64'],
    ...['-m', `${memoryBytes}b`, '-machine', 'pc-q35-7.2,accel=tcg,memory-backend=ram'],
    ...['-object', `memory-backend-memfd,id=ram,size=${memoryBytes},${backend}`],
    ...(guest === 'shell' ? shellArguments() : corpusArguments()),
    ...['-append', 'console=ttyS0 quiet mitigations=off random.trust_cpu=on panic=1'],
    ...['-chardev', `socket,id=s0,path=${folder}/${name}.serial,server=on,wait=off`, '-serial', 'chardev:s0'],
    ...['-qmp', `unix:${folder}/${name}.qmp,server=on,wait=off`],
    ...(incoming === undefined ? [] : ['-incoming', incoming]),
    ...(options.extra ?? []),
  ];
}

function shellArguments(): string[] {
  const folder = linuxFolder('amd64');
  return ['-smp', '1', '-kernel', `${folder}/vmlinuz`, '-initrd', `${folder}/initrd.gz`];
}

/** What the guest writes to its disk is gone with its QEMU, so that several can have the same one. */
function corpusArguments(): string[] {
  const folder = corpusFolder();
  return [
    ...['-smp', '2', '-kernel', `${folder}/vmlinuz`, '-initrd', `${folder}/initrd.cpio`],
    ...['-drive', `file=${folder}/root.ext4,format=raw,if=none,id=disk,cache=unsafe,snapshot=on`],
    ...['-device', 'virtio-blk-pci,drive=disk'],
  ];
}

/** A QEMU that nobody but the test owns. */
export class LinuxQemu {
  readonly qmpPath: string;
  readonly line: SerialLine;
  readonly #child: ChildProcess;
  readonly #exited: Promise<void>;
  readonly #serial: Socket;

  private constructor(qmpPath: string, child: ChildProcess, exited: Promise<void>, serial: Socket) {
    this.qmpPath = qmpPath;
    this.#child = child;
    this.#exited = exited;
    this.#serial = serial;
    this.line = new SerialLine((text) => serial.write(text));
    serial.on('data', (data) => this.line.take(data.toString('latin1')));
    serial.on('error', () => {});
  }

  static async start(options: LinuxOptions): Promise<LinuxQemu> {
    const child = spawn(qemuCommand, linuxArguments(options), { stdio: ['ignore', 'ignore', 'inherit'] });
    const exited = new Promise<void>((resolve) => child.once('close', () => resolve()));
    const { folder, name } = options;
    const serial = await connectTo(`${folder}/${name}.serial`);
    return new LinuxQemu(`${folder}/${name}.qmp`, child, exited, serial);
  }

  get processId(): number {
    return this.#child.pid ?? 0;
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
    this.#serial.destroy();
  }
}

const bootMs = 45_000;
const bootTries = 3;
const workMs = 400_000;

/** The guest whose RAM is the corpus, when it has done its work. */
export async function startAtWork(folder: string, memoryBytes: number): Promise<LinuxQemu> {
  const qemu = await startBooted(folder, memoryBytes, bootTries);
  await qemu.line.waitFor(/^CORPUS-READY/, 0, workMs);
  return qemu;
}

/** QEMU 7.2 was seen to stand still before the kernel's first line. */
async function startBooted(folder: string, memoryBytes: number, tries: number): Promise<LinuxQemu> {
  const qemu = await LinuxQemu.start({ folder, name: 'a', memoryBytes, guest: 'corpus' });
  try {
    await qemu.line.waitFor(/^CORPUS-KERNEL/, 0, bootMs);
    return qemu;
  } catch (error) {
    await qemu.kill();
    if (tries > 1) return await startBooted(folder, memoryBytes, tries - 1);
    throw error;
  }
}

async function connectTo(path: string): Promise<Socket> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await new Promise<Socket>((resolve, reject) => {
        const socket = connect(path, () => resolve(socket));
        socket.once('error', reject);
      });
    } catch (error) {
      if (tries === 1000) throw error;
      await sleep(10);
    }
  }
}
