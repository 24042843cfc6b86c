/**
 * Ranges of a data object: exactly the bytes that were asked for, of exactly the object that was opened.
 *
 * A body that ends early is asked for again from there; after several attempts without a byte the read fails. A body that goes on too
 * long is cut and is an error.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { CheckpointError, type ErrorDetails } from '../../errors/index.ts';
import { isTransient, s3Failure, statusOf } from './failure.ts';
import type { S3Service } from './service.ts';

const attemptsMax = 5;
const delayMs = 50;

export interface RangeSource {
  readonly key: string;
  readonly etag: string;
  readonly bytes: number;
}

/**
 * Gives `take` the bytes, piece by piece, in order; they are its own. Throws `CHKPT_REPLACED` when the object is another one or gone, `CHKPT_LINK_LOST`,
 * `CHKPT_TIMEOUT`, `CHKPT_IO`, `CHKPT_ABORTED`.
 */
export async function readRange(
  service: S3Service,
  source: RangeSource,
  range: { readonly offset: number; readonly bytes: number },
  take: (chunk: Uint8Array) => void,
  details: ErrorDetails,
  signal?: AbortSignal,
): Promise<void> {
  let done = 0;
  for (let attempt = 1; ; attempt += 1) {
    const before = done;
    try {
      const rest = range.bytes - done;
      for await (const chunk of await service.readRange(source, range.offset + done, rest, signal)) {
        if (chunk.length > range.bytes - done) throw tooLong(source, details);
        done += chunk.length;
        take(chunk);
      }
      if (done === range.bytes) return;
      throw new CheckpointError('CHKPT_LINK_LOST', 'the body of an answer ends early', { details });
    } catch (error) {
      if (signal?.aborted)
        throw new CheckpointError('CHKPT_ABORTED', 'aborted', { details, cause: signal.reason });
      if (done > before) attempt = 1;
      if (!isTransient(error) || attempt >= attemptsMax) throw readFailure(error, source, details);
    }
    await delay(delayMs * 2 ** attempt * (0.5 + Math.random() / 2));
  }
}

function readFailure(error: unknown, source: RangeSource, details: ErrorDetails): CheckpointError {
  const status = statusOf(error);
  const place = { ...details, path: source.key };
  if (status !== 404 && status !== 412) return s3Failure(error, 'cannot read', place);
  const what = 'an object of the checkpoint was replaced or removed while it was read';
  return new CheckpointError('CHKPT_REPLACED', what, { details: place, cause: error });
}

function tooLong({ key }: RangeSource, details: ErrorDetails): CheckpointError {
  return new CheckpointError('CHKPT_IO', 'the service answers with more bytes than were asked for', {
    details: { ...details, path: key },
  });
}
