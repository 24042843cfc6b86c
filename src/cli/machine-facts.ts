/**
 * The machine that a checkpoint belongs to, as far as it says: header and device table (docs/format.md section 11). Checkpoints
 * that were not made by `saveVm` or `chkpt save` may have neither, or something else under these names.
 */
import { headerContext, headerState, type VmHeader } from '../checkpoint/vm-header.ts';
import { type DeviceRow, devicesContext } from '../checkpoint/vm-plan.ts';
import type { AnyValue, OpenInspection } from '../index.ts';

/** The header, or `undefined` when there is none that is whole. */
export async function readHeader(inspection: OpenInspection): Promise<VmHeader | undefined> {
  const context = inspection.contexts.find(({ name, kind }) => name === headerContext && kind === 'values');
  const typeOf = new Map(context?.tags.map(({ name, type }) => [name, type]));
  if (!headerState.leaves.every(({ tag, type }) => typeOf.get(tag) === type)) return undefined;
  const values = new Map<string, AnyValue>();
  for (const { tag } of headerState.leaves) {
    values.set(tag, (await inspection.readTag(headerContext, tag)).value);
  }
  return headerState.decode(({ tag }) => values.get(tag));
}

/** The device table; `undefined` when there is none. Rows end where the tags do, whatever the count says. */
export async function readDevices(inspection: OpenInspection): Promise<DeviceRow[] | undefined> {
  const context = inspection.contexts.find(({ name, kind }) => name === devicesContext && kind === 'values');
  if (context === undefined) return undefined;
  const types = new Map(context.tags.map(({ name, type }) => [name, type]));
  const text = async (tag: string): Promise<string | undefined> => {
    if (types.get(tag) !== 'string') return undefined;
    return String((await inspection.readTag(devicesContext, tag)).value);
  };
  const devices: DeviceRow[] = [];
  for (;;) {
    const prefix = `device.${devices.length}`;
    const id = await text(`${prefix}.id`);
    if (id === undefined) return devices;
    const deviceClass = (await text(`${prefix}.class`)) ?? '';
    const contexts: string[] = [];
    for (let name = await text(`${prefix}.context.0`); name !== undefined; ) {
      contexts.push(name);
      name = await text(`${prefix}.context.${contexts.length}`);
    }
    devices.push({ id, deviceClass, contexts });
  }
}
