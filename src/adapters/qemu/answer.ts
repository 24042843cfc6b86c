/** Checked access to what QEMU answers: its types are a peer's promise, not ours. */
import { CheckpointError } from '../../index.ts';

/** Throws `CHKPT_QMP_PROTOCOL`. */
function wrong(what: string, value: unknown): never {
  const shown = JSON.stringify(value)?.slice(0, 80) ?? 'nothing';
  throw new CheckpointError('CHKPT_QMP_PROTOCOL', `QEMU answered ${shown} where ${what} was expected`);
}

export type Fields = Readonly<Record<string, unknown>>;

export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function fieldsOf(value: unknown): Fields {
  return isFields(value) ? value : wrong('an object', value);
}

export function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : wrong('a list', value);
}

export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : wrong('a string', value);
}

/** A whole number that is not negative. */
export function countOf(value: unknown): number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
    ? value
    : wrong('a whole number', value);
}
