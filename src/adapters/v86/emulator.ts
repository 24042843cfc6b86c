/**
 * What chkpt needs of a v86 emulator, by shape, and the two things it does with it: taking the state apart and putting it back.
 *
 * v86 saves everything in one buffer, guest memory packed and copied several times. Its methods that pack and unpack memory are
 * replaced for the time of a call, so that the buffer holds devices and processor only, and memory goes through the native
 * pipeline, in place (names seen in v86 0.5.462, state format 6).
 */
import { CheckpointError, type WasmMemory } from '../../index.ts';
import { type EmulatorState, encodeStateFile, parseStateFile } from './state-file.ts';

/** A device, as far as it is only a name here. */
type Device = object;

export interface V86Cpu {
  /** Guest memory: a Proxy, so only its length and offset are used. */
  readonly mem8: { readonly length: number; readonly byteOffset: number };
  readonly wasm_memory: WasmMemory;
  devices: Readonly<Record<string, Device | undefined>>;
  /** One entry for each part; those of devices are the devices. */
  get_state(): unknown[];
  pack_memory?: unknown;
  unpack_memory?: unknown;
}

/** An instance of `V86`. */
export interface V86Emulator {
  readonly v86: { readonly cpu: V86Cpu };
  is_running(): boolean;
  run(): Promise<void> | void;
  stop(): Promise<void>;
  save_state(): Promise<ArrayBuffer>;
  restore_state(state: ArrayBuffer): Promise<void>;
}

/** Entries of the state that stand for guest memory: what was packed, and which pages. */
export const memoryEntries: ReadonlySet<number> = new Set([77, 78]);
const pageMapShift = 15;

/** Throws `CHKPT_UNSUPPORTED` when it is no emulator, not ready, or a version that is built in another way. */
export function checkEmulator(emulator: V86Emulator): void {
  const cpu = emulator?.v86?.cpu;
  const missing =
    cpu === undefined
      ? 'v86.cpu'
      : (['get_state', 'pack_memory', 'unpack_memory'] as const).find(
          (name) => typeof cpu[name] !== 'function',
        );
  const parts = cpu === undefined ? undefined : [cpu.mem8?.length, cpu.wasm_memory?.buffer, cpu.devices];
  if (missing === undefined && parts?.every((part) => part !== undefined)) return;
  const what = `not a v86 emulator that is ready${missing === undefined ? '' : `: ${missing} is missing`}`;
  throw new CheckpointError(
    'CHKPT_UNSUPPORTED',
    `${what} (wait for "emulator-ready"; known to work: v86 0.5.462)`,
  );
}

/** Where guest memory lies in the WebAssembly memory now. Another buffer after every growth. */
export function memoryOf({ v86: { cpu } }: V86Emulator): {
  readonly memory: WasmMemory;
  readonly offset: number;
  readonly bytes: number;
} {
  return { memory: cpu.wasm_memory, offset: cpu.mem8.byteOffset, bytes: cpu.mem8.length };
}

/** The state without guest memory. The emulator must be stopped. */
export async function captureState(emulator: V86Emulator): Promise<EmulatorState> {
  const restore = withoutMemory(emulator.v86.cpu);
  try {
    return parseStateFile(new Uint8Array(await emulator.save_state()));
  } finally {
    restore();
  }
}

/** Makes v86 pack no memory, which takes it a tenth of a second and more, until the result is called. */
function withoutMemory(cpu: V86Cpu): () => void {
  const pages = new Uint8Array(cpu.mem8.length >> pageMapShift);
  const nothing = { bitmap: { get_buffer: () => pages }, packed_memory: new Uint8Array(0) };
  return hook(cpu, 'pack_memory', () => nothing);
}

/**
 * Replaces the state and leaves guest memory as it is. The emulator must be stopped. Devices whose entry is not in `loaded` are
 * not touched: v86 cannot take back the state of a PCI bus that no BIOS has set up.
 */
export async function restoreState(
  emulator: V86Emulator,
  state: EmulatorState,
  loaded: ReadonlySet<number>,
): Promise<void> {
  const { cpu } = emulator.v86;
  const { devices } = cpu;
  const others = new Map([...deviceNames(emulator)].filter(([index]) => !loaded.has(index)));
  const names = new Set(others.values());
  const entries = state.entries.map((entry, index) => (others.has(index) ? null : entry));
  const file = encodeStateFile({ ...state, entries });
  const restore = hook(cpu, 'unpack_memory', () => undefined);
  // What the processor does not see, it does not restore.
  cpu.devices = Object.fromEntries(Object.entries(devices).filter(([name]) => !names.has(name)));
  try {
    await emulator.restore_state(file);
  } finally {
    cpu.devices = devices;
    restore();
  }
}

/** The name of the device behind each entry of the state. */
export function deviceNames({ v86: { cpu } }: V86Emulator): ReadonlyMap<number, string> {
  const nameOf = new Map(Object.entries(cpu.devices).map(([name, device]) => [device as unknown, name]));
  const names = new Map<number, string>();
  const restore = withoutMemory(cpu);
  try {
    for (const [index, entry] of cpu.get_state().entries()) {
      const name = typeof entry === 'object' && entry !== null ? nameOf.get(entry) : undefined;
      if (name !== undefined) names.set(index, name);
    }
  } finally {
    restore();
  }
  return names;
}

/** Puts a method before that of the prototype; the result takes it away. */
function hook(object: object, name: string, method: () => unknown): () => void {
  Object.defineProperty(object, name, { value: method, configurable: true, writable: true });
  return () => Reflect.deleteProperty(object, name);
}
