/** The device table of an original: a count, and names of 32 bytes. Names are ended by force and their count is bounded. */
import { CheckpointError } from '../../errors/index.ts';
import { formatError, type Place } from '../../format/bytes.ts';
import { decodeName, encodeName } from '../../format/names.ts';
import type { PalaciosContext, PalaciosRecord } from './record.ts';
import { deviceNameBytes, devicesContext } from './schema.ts';

/** Longest id of a device: one byte ends it. */
export const deviceIdBytesMax = deviceNameBytes - 1;
/** More than any machine has. */
export const deviceCountMax = 4096;

/** Throws `CHKPT_NAME` for an id that does not fit. */
export function encodeDeviceTable(ids: readonly string[]): PalaciosContext {
  const count = new Uint8Array(4);
  new DataView(count.buffer).setUint32(0, ids.length, true);
  const names = new Uint8Array(deviceNameBytes * ids.length);
  for (const [index, id] of ids.entries()) {
    const bytes = encodeName(id, { context: devicesContext });
    if (bytes.length > deviceIdBytesMax) {
      throw new CheckpointError('CHKPT_NAME', `a device id of more than ${deviceIdBytesMax} bytes`, {
        details: { context: devicesContext, actual: id },
      });
    }
    names.set(bytes, index * deviceNameBytes);
  }
  return {
    name: devicesContext,
    records: [
      { tag: 'num_devs', data: count },
      { tag: 'names', data: names },
    ],
  };
}

/**
 * The ids in a device table whose records have the right tags. Throws `CHKPT_FORMAT` for a count that does not fit the names, a name
 * that does not end, is none, stands there twice or has something behind its end; `CHKPT_LIMIT` above 4096 devices.
 */
export function decodeDeviceTable(records: readonly PalaciosRecord[]): string[] {
  const place: Place = { context: devicesContext };
  const [count, names] = records.map(({ data }) => data);
  if (count?.length !== 4 || names === undefined) throw formatError('no device table', place);
  const deviceCount = new DataView(count.buffer, count.byteOffset, 4).getUint32(0, true);
  if (deviceCount > deviceCountMax) {
    throw new CheckpointError('CHKPT_LIMIT', 'more devices than any machine has', {
      details: { ...place, tag: 'num_devs', expected: deviceCountMax, actual: deviceCount },
    });
  }
  if (names.length !== deviceNameBytes * deviceCount) {
    throw formatError(
      'the names do not fit the number of devices',
      { ...place, tag: 'names' },
      {
        expected: deviceNameBytes * deviceCount,
        actual: names.length,
      },
    );
  }
  const ids = Array.from({ length: deviceCount }, (_, index) =>
    decodeId(names.subarray(index * deviceNameBytes, (index + 1) * deviceNameBytes), {
      ...place,
      tag: 'names',
    }),
  );
  if (new Set(ids).size !== ids.length) throw formatError('a device stands in the table twice', place);
  return ids;
}

function decodeId(bytes: Uint8Array, place: Place): string {
  const end = bytes.indexOf(0);
  if (end === -1) throw formatError('the name of a device does not end', place);
  if (bytes.subarray(end).some((byte) => byte !== 0)) {
    throw formatError('something stands behind the name of a device', place);
  }
  return decodeName(bytes.subarray(0, end), place);
}
