/** v86 emulators for tests and measurements: a real Linux, or one that only runs its BIOS. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { V86Emulator } from '../../src/adapters/v86/index.ts';
import { packageRoot } from '../package-link.ts';

const require = createRequire(import.meta.url);
const root = packageRoot();
export const guestFolder = `${root}/bench/corpus/data/guest-i386`;
const firmware = '/usr/share/seabios';

/** What an emulator is beside what the adapter needs. */
export interface Guest extends V86Emulator {
  serial0_send(text: string): void;
  add_listener(event: string, listener: (value: never) => void): void;
  destroy(): Promise<void>;
}

export interface GuestOptions {
  readonly memoryBytes?: number;
  readonly vgaBytes?: number;
  readonly linux?: boolean;
  /** `none` has no network card. */
  readonly network?: 'none' | undefined;
}

/** Why there can be no guest; undefined when there can. Makes the Linux guest when it is not there. */
export function whyNoGuest(): string | undefined {
  if (!existsSync(`${firmware}/bios.bin`)) return 'no BIOS: apt-get install seabios';
  try {
    execFileSync(`${root}/bench/corpus/make-linux-guest.sh`, ['i386'], { stdio: 'pipe', timeout: 300_000 });
    return undefined;
  } catch (error) {
    return `no Linux guest: ${String((error as { stderr?: Buffer }).stderr ?? error).trim()}`;
  }
}

const load = (path: string): { buffer: ArrayBuffer } => {
  const bytes = readFileSync(path);
  return { buffer: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer };
};

/** A guest that is ready and not running. */
export async function createGuest(options: GuestOptions = {}): Promise<Guest> {
  const { memoryBytes = 128 << 20, vgaBytes = 2 << 20, linux = false, network } = options;
  const { V86 } = (await import('v86')) as unknown as { V86: new (options: object) => Guest };
  const guest = new V86({
    wasm_path: require.resolve('v86/build/v86.wasm'),
    memory_size: memoryBytes,
    vga_memory_size: vgaBytes,
    bios: load(`${firmware}/bios.bin`),
    vga_bios: load(`${firmware}/vgabios-stdvga.bin`),
    ...(linux
      ? {
          bzimage: load(`${guestFolder}/vmlinuz`),
          initrd: load(`${guestFolder}/initrd.gz`),
          cmdline: commandLine,
        }
      : {}),
    ...(network === undefined ? {} : { net_device: { type: network } }),
    autostart: false,
    disable_speaker: true,
    disable_keyboard: true,
    disable_mouse: true,
  });
  await new Promise<void>((ready) => guest.add_listener('emulator-ready', () => ready()));
  return guest;
}

const commandLine =
  'console=ttyS0 quiet tsc=reliable mitigations=off random.trust_cpu=on nowatchdog 8250.nr_uarts=1';

/** The serial line of a guest: what it says, line by line, and a way to wait for it. */
export class SerialLine {
  readonly lines: string[] = [];
  readonly #guest: Guest;
  #current = '';
  #changed: () => void = () => {};

  constructor(guest: Guest) {
    this.#guest = guest;
    guest.add_listener('serial0-output-byte', (byte: number) => this.#take(String.fromCharCode(byte)));
  }

  /** The first line from `from` on that matches; rejects after `timeoutMs`. */
  async waitFor(pattern: RegExp, from = 0, timeoutMs = 120_000): Promise<string> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const line = this.lines.slice(from).find((text) => pattern.test(text));
      if (line !== undefined) return line;
      const rest = deadline - Date.now();
      if (rest <= 0)
        throw new Error(`the guest never said ${pattern}; last: ${this.lines.slice(-5).join(' | ')}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.min(rest, 1000));
        this.#changed = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Runs a command in the guest's shell and gives the lines up to its DONE. */
  async command(text: string): Promise<string[]> {
    const from = this.lines.length;
    this.#guest.serial0_send(`${text}\n`);
    await this.waitFor(/^DONE /, from);
    return this.lines.slice(from).filter((line) => !/^(TICK|DONE) /.test(line));
  }

  #take(character: string): void {
    if (character !== '\n') {
      this.#current += character === '\r' ? '' : character;
      return;
    }
    this.lines.push(this.#current);
    this.#current = '';
    this.#changed();
  }
}
