/**
 * The device state that QEMU writes when it migrates: full sections of devices, and behind them a JSON that says which fields each has.
 * Source: QEMU, docs/devel/migration.rst, migration/savevm.c; seen from 7.2. Untrusted input.
 *
 * Guest memory that stands in between has another form, which changes between versions and is not needed: the section of each device of the
 * JSON is looked for by its header, and taken when its end is where its fields end.
 */

const magic = 0x5145_564d;
const version = 3;
const sectionFull = 4;
const subsection = 5;
const description = 6;
const footer = 0x7e;
/** Bytes of the JSON; those of a PC with many devices are some 100 KB. */
const descriptionBytesMax = 16 * 1024 * 1024;
const depthMax = 16;
/** What a forged JSON can make us look for, and remember. */
const devicesMax = 1024;
const fieldsMax = 1 << 20;

interface Field {
  readonly name: string;
  readonly size: number;
  readonly index?: number;
  readonly array_len?: number;
  readonly struct?: Description;
}

interface Description {
  readonly name?: string;
  readonly vmsd_name?: string;
  readonly instance_id?: number;
  readonly version?: number;
  readonly fields?: readonly Field[];
  readonly subsections?: readonly Description[];
}

/** Fields of one device. Numbers are unsigned and big-endian. */
export class DeviceState {
  readonly name: string;
  /** `field`, `field[3]` of an array, `field[3].inner` of a structure, `subsection/field`. */
  readonly #fields: ReadonlyMap<string, Uint8Array>;

  constructor(name: string, fields: ReadonlyMap<string, Uint8Array>) {
    this.name = name;
    this.#fields = fields;
  }

  get names(): IterableIterator<string> {
    return this.#fields.keys();
  }

  bytes(field: string): Uint8Array | undefined {
    return this.#fields.get(field);
  }

  /** Undefined when there is none, or it is longer than 8 bytes. */
  number(field: string): bigint | undefined {
    const bytes = this.#fields.get(field);
    if (bytes === undefined || bytes.length === 0 || bytes.length > 8) return undefined;
    return bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
  }
}

export interface VmState {
  /** Those that were wanted and found, in the order of the state. */
  readonly devices: readonly DeviceState[];
  /** Names of all others. */
  readonly others: readonly string[];
}

/** The devices with a name of `wanted`; undefined when it is no state, or has no JSON. */
export function parseVmState(state: Uint8Array, wanted: ReadonlySet<string>): VmState | undefined {
  const view = new DataView(state.buffer, state.byteOffset, state.byteLength);
  if (state.length < 8 || view.getUint32(0) !== magic || view.getUint32(4) !== version) return undefined;
  const described = describe(state, view);
  if (described === undefined) return undefined;
  const devices: DeviceState[] = [];
  const others: string[] = [];
  let at = 8;
  for (const device of described.devices.slice(0, devicesMax)) {
    if (typeof device.name !== 'string') continue;
    const found = wanted.has(device.name)
      ? findDevice(state.subarray(0, described.start), view, device, at)
      : undefined;
    if (found === undefined) others.push(device.name);
    else {
      devices.push(found.device);
      at = found.end;
    }
  }
  return { devices, others };
}

/** The JSON stands at the end, behind its length. */
function describe(
  state: Uint8Array,
  view: DataView,
): { readonly start: number; readonly devices: readonly Description[] } | undefined {
  const text = Buffer.from(state.buffer, state.byteOffset, state.byteLength);
  for (let at = text.lastIndexOf('{"page_size"'); at >= 5; at = text.lastIndexOf('{"page_size"', at - 1)) {
    const bytes = view.getUint32(at - 4);
    const isOne = view.getUint8(at - 5) === description && bytes <= descriptionBytesMax;
    if (!isOne || bytes > state.length - at) continue;
    try {
      const { devices } = JSON.parse(text.toString('utf8', at, at + bytes)) as { devices?: unknown };
      if (Array.isArray(devices)) return { start: at - 5, devices: devices.filter(isDescription) };
    } catch {
      return undefined;
    }
  }
  return undefined;
}

function isDescription(value: unknown): value is Description {
  return typeof value === 'object' && value !== null;
}

function findDevice(
  state: Uint8Array,
  view: DataView,
  device: Description,
  from: number,
): { readonly device: DeviceState; readonly end: number } | undefined {
  const { name, instance_id: instance, version: deviceVersion } = device;
  if (typeof name !== 'string' || name.length > 255 || !isSize(instance) || !isSize(deviceVersion))
    return undefined;
  // Behind the type and the number of a section: the name behind its length, the instance, the version.
  const header = Buffer.concat([Buffer.of(name.length), Buffer.from(name, 'latin1'), Buffer.alloc(8)]);
  header.writeUInt32BE(instance, header.length - 8);
  header.writeUInt32BE(deviceVersion, header.length - 4);
  const bytes = Buffer.from(state.buffer, state.byteOffset, state.byteLength);
  for (let at = bytes.indexOf(header, from + 5); at >= 0; at = bytes.indexOf(header, at + 1)) {
    if (view.getUint8(at - 5) !== sectionFull) continue;
    const reader = new FieldReader(state, at + header.length);
    if (!reader.take(device, '', 0)) continue;
    const end = reader.at;
    const isWhole =
      end + 5 <= state.length &&
      view.getUint8(end) === footer &&
      view.getUint32(end + 1) === view.getUint32(at - 4);
    if (isWhole) return { device: new DeviceState(name, reader.fields), end: end + 5 };
  }
  return undefined;
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0 && Number(value) <= 0xffff_ffff;
}

class FieldReader {
  readonly fields = new Map<string, Uint8Array>();
  readonly #state: Uint8Array;
  at: number;

  constructor(state: Uint8Array, at: number) {
    this.#state = state;
    this.at = at;
  }

  /** False when the bytes are not what the description says. */
  take({ fields = [], subsections = [] }: Description, path: string, depth: number): boolean {
    if (depth > depthMax || !Array.isArray(fields) || !Array.isArray(subsections)) return false;
    return (
      fields.every((field) => isDescription(field) && this.#takeField(field as Field, path, depth)) &&
      subsections.every((one) => isDescription(one) && this.#takeSubsection(one, path, depth))
    );
  }

  #takeField({ name, size, index, array_len: count, struct }: Field, path: string, depth: number): boolean {
    if (typeof name !== 'string' || !isSize(size) || !isSize(count ?? 1)) return false;
    if (this.fields.size + (count ?? 1) > fieldsMax) return false;
    const end = this.at + size * (count ?? 1);
    if (end > this.#state.length) return false;
    for (let element = 0; element < (count ?? 1); element += 1) {
      const number = count === undefined ? index : element;
      const own = `${path}${name}${number === undefined ? '' : `[${number}]`}`;
      const start = this.at;
      if (struct === undefined || size === 0) this.fields.set(own, this.#state.subarray(start, start + size));
      // What a structure does not tell of itself is skipped.
      else if (!this.take(struct, `${own}.`, depth + 1) || this.at > start + size) return false;
      this.at = start + size;
    }
    return true;
  }

  #takeSubsection(one: Description, path: string, depth: number): boolean {
    const { vmsd_name: name, version: own } = one;
    if (typeof name !== 'string' || name.length > 255 || !isSize(own)) return false;
    const header = Buffer.concat([
      Buffer.of(subsection, name.length),
      Buffer.from(name, 'latin1'),
      Buffer.alloc(4),
    ]);
    header.writeUInt32BE(own, header.length - 4);
    const found = this.#state.subarray(this.at, this.at + header.length);
    if (Buffer.compare(found, header) !== 0) return false;
    this.at += header.length;
    return this.take(one, `${path}${name}/`, depth + 1);
  }
}
