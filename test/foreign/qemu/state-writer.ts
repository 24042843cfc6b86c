/** Device state as QEMU writes it (docs/devel/migration.rst of QEMU), made up for tests. */

export interface MadeField {
  readonly name: string;
  /** Of each element. */
  readonly elements: readonly (Uint8Array | MadeStruct)[];
  /** Without it the field is a single one. */
  readonly isArray?: boolean;
}

export interface MadeStruct {
  readonly fields: readonly MadeField[];
}

export interface MadeDevice extends MadeStruct {
  readonly name: string;
  readonly instance: number;
  readonly subsections?: readonly (MadeStruct & { readonly name: string })[];
}

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

const named = (name: string): Buffer => Buffer.concat([Buffer.of(name.length), Buffer.from(name, 'latin1')]);

function bytesOf(element: Uint8Array | MadeStruct): Buffer {
  return element instanceof Uint8Array
    ? Buffer.from(element)
    : Buffer.concat(element.fields.flatMap(fieldBytes));
}

function fieldBytes({ elements }: MadeField): Buffer[] {
  return elements.map(bytesOf);
}

function describeField({ name, elements, isArray }: MadeField): object {
  const [first = new Uint8Array()] = elements;
  return {
    name,
    type: 'made',
    size: bytesOf(first).length,
    ...(isArray ? { array_len: elements.length } : {}),
    ...(first instanceof Uint8Array
      ? {}
      : { struct: { vmsd_name: 'made', version: 1, fields: first.fields.map(describeField) } }),
  };
}

/** With a section of memory in front, that looks as it likes. */
export function encodeVmState(devices: readonly MadeDevice[], memory: Uint8Array = new Uint8Array()): Buffer {
  const sections = devices.map(({ name, instance, fields, subsections = [] }, index) =>
    Buffer.concat([
      Buffer.of(4),
      u32(index + 40),
      named(name),
      u32(instance),
      u32(1),
      ...fields.flatMap(fieldBytes),
      ...subsections.flatMap((one) => [
        Buffer.of(5),
        named(one.name),
        u32(1),
        ...one.fields.flatMap(fieldBytes),
      ]),
      Buffer.of(0x7e),
      u32(index + 40),
    ]),
  );
  const json = Buffer.from(
    JSON.stringify({
      page_size: 4096,
      devices: devices.map(({ name, instance, fields, subsections }) => ({
        name,
        instance_id: instance,
        vmsd_name: name,
        version: 1,
        fields: fields.map(describeField),
        ...(subsections && {
          subsections: subsections.map((one) => ({
            vmsd_name: one.name,
            version: 1,
            fields: one.fields.map(describeField),
          })),
        }),
      })),
    }).replace('{"page_size":4096,', '{"page_size": 4096, '),
  );
  return Buffer.concat([
    Buffer.from('QEVM'),
    u32(3),
    memory,
    ...sections,
    Buffer.of(6),
    u32(json.length),
    json,
  ]);
}
