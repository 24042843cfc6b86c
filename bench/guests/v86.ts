/** v86 emulators for tests and measurements: a real Linux, or one that only runs its BIOS. */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { V86Emulator } from '../../src/adapters/v86/index.ts';
import { linuxFolder, whyNoLinux } from './linux.ts';
import { unlessRequired } from './required.ts';
import { SerialLine } from './serial-line.ts';

const require = createRequire(import.meta.url);
export const guestFolder = linuxFolder('i386');
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
  if (!existsSync(`${firmware}/bios.bin`)) return unlessRequired('no BIOS: apt-get install seabios');
  return whyNoLinux('i386');
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

/** The serial line of a guest. */
export function serialLineOf(guest: Guest): SerialLine {
  const line = new SerialLine((text) => guest.serial0_send(text));
  guest.add_listener('serial0-output-byte', (byte: number) => line.take(String.fromCharCode(byte)));
  return line;
}
