/** Whether the records of a context are those that its schema says, and which kind of device a context belongs to. */
import { CheckpointError } from '../../errors/index.ts';
import { formatError } from '../../format/bytes.ts';
import type { PalaciosContext, PalaciosRecord } from './record.ts';
import {
  apicCountMax,
  type DeviceKind,
  deviceKinds,
  localApicTagCount,
  type Schema,
  schemaOfKind,
} from './schema.ts';

/**
 * Throws `CHKPT_FORMAT` for another tag or length, or none at all; `CHKPT_TRUNCATED` when records are missing at the end;
 * `CHKPT_TRAILING_DATA` for records behind the last one: originals do not cut a file that they write again.
 */
export function checkContext({ name, records }: PalaciosContext, schema: Schema): void {
  const details = { context: name };
  if (records.length === 0 && schema.length > 0) throw formatError('a context without content', details);
  for (const [index, [tag, bytes]] of schema.entries()) {
    const record = records[index];
    if (record === undefined) {
      throw new CheckpointError('CHKPT_TRUNCATED', 'a record is missing', { details: { ...details, tag } });
    }
    if (record.tag !== tag) {
      throw formatError('another tag than expected', { ...details, tag: record.tag }, { expected: tag });
    }
    if (record.data.length !== bytes) {
      const values = { expected: bytes, actual: record.data.length };
      throw formatError('a value of another length', { ...details, tag }, values);
    }
  }
  if (records.length > schema.length) throw staleTail(name, records[schema.length]?.tag);
}

/**
 * The kind of device whose state this is; `undefined`: none that is known. Throws `CHKPT_TRAILING_DATA` when the state of one is
 * whole and something stands behind it.
 */
export function kindOfContext({ name, records }: PalaciosContext): DeviceKind | undefined {
  for (const kind of deviceKinds) {
    const apicCount = kind === 'local APICs' ? apicCountIn(records) : 1;
    // The schema of many APICs is long, and cheap to ask for.
    if (kind === 'local APICs' && records.length < localApicTagCount(apicCount)) continue;
    const schema = schemaOfKind(kind, apicCount);
    if (!schema.every(([tag, bytes], index) => isRecord(records[index], tag, bytes))) continue;
    if (records.length === schema.length) return kind;
    if (schema.length > 0) throw staleTail(name, records[schema.length]?.tag);
  }
  return undefined;
}

function isRecord(record: PalaciosRecord | undefined, tag: string, bytes: number): boolean {
  return record?.tag === tag && record.data.length === bytes;
}

function apicCountIn([first]: readonly PalaciosRecord[]): number {
  if (!isRecord(first, 'NUM_APICS', 4)) return 1;
  const { data } = first as PalaciosRecord;
  const count = new DataView(data.buffer, data.byteOffset, 4).getUint32(0, true);
  return Math.min(Math.max(count, 1), apicCountMax);
}

function staleTail(context: string, tag: string | undefined): CheckpointError {
  return new CheckpointError(
    'CHKPT_TRAILING_DATA',
    'records behind the last one: what an older save has left',
    {
      details: { context, tag },
    },
  );
}
