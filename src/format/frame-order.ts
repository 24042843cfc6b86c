/** Errors for frames that may not stand where they stand. */
import { CheckpointError } from '../errors/index.ts';
import { formatError, type Place } from './bytes.ts';
import {
  type ContextKind,
  contextKinds,
  frameTypeName,
  isKnownFrameType,
  isUnknownOptionalType,
} from './constants.ts';
import type { FrameHeader } from './frame-header.ts';

/** The part of a frame that says what and where it is. */
export interface PlacedHeader {
  readonly header: FrameHeader;
  /** Offset of the frame in the stream. */
  readonly offset: number;
}

/** Where a frame stands. */
export function placeOf({ header, offset }: PlacedHeader): Place {
  return { frame: header.sequence, offset };
}

/** Throws `CHKPT_VERSION` for a critical type that this version does not know. */
export function checkKnown(frame: PlacedHeader): void {
  const { type } = frame.header;
  if (isKnownFrameType(type) || isUnknownOptionalType(type)) return;
  throw new CheckpointError('CHKPT_VERSION', `frame type ${frameTypeName(type)} is not known`, {
    details: { ...placeOf(frame), actual: frameTypeName(type) },
  });
}

/**
 * The error for a frame that may not stand here: `CHKPT_FORMAT`, or `CHKPT_VERSION` when its type is unknown.
 */
export function illegalFrame(frame: PlacedHeader, where: string): CheckpointError {
  checkKnown(frame);
  return formatError(`a ${frameTypeName(frame.header.type)} frame ${where}`, placeOf(frame));
}

/** Kind of the context that a CONTEXT_OPEN frame opens. Throws `CHKPT_FORMAT`. */
export function contextKindOf(frame: PlacedHeader): ContextKind {
  const { arg1 } = frame.header;
  if (arg1 === BigInt(contextKinds.values)) return 'values';
  if (arg1 === BigInt(contextKinds.memory)) return 'memory';
  throw formatError('an unknown kind of context', placeOf(frame), { actual: arg1 });
}
