/**
 * Standard output and standard error of a command.
 *
 * Data and JSON go to standard output, and whoever closes it ends the command quietly (`OutputClosed`). Progress, summaries and
 * errors go to standard error; main.ts ignores failures there, because there is nobody left to tell.
 */
import { fstatSync, writeSync } from 'node:fs';
import { isatty } from 'node:tty';
import { CheckpointError, fromSystemError } from '../errors/index.ts';

const standardOutput = 1;

/** The reader of standard output has gone. */
export class OutputClosed extends Error {
  constructor() {
    super('standard output was closed');
    this.name = 'OutputClosed';
  }
}

export class Output {
  /** Writes to standard output; resolves when the system has the bytes. Throws `OutputClosed`, `CHKPT_NO_SPACE`, `CHKPT_IO`. */
  async write(data: string | Uint8Array): Promise<void> {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data;
    try {
      if (isPlainFile()) writeFully(bytes);
      else await writeToStream(bytes);
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'EPIPE') throw new OutputClosed();
      throw fromSystemError(error, 'cannot write to standard output');
    }
  }

  /** One JSON document. Keep 64-bit integers out of it: `JSON` has no exact form for them. */
  async json(document: unknown): Promise<void> {
    await this.write(`${JSON.stringify(document, undefined, 2)}\n`);
  }

  /** One line on standard error. `line` is free of control characters. */
  note(line: string): void {
    process.stderr.write(`${line}\n`);
  }
}

/** A file or a device that is no terminal: Node's stream for those loses the rest of a write that was cut short. */
function isPlainFile(): boolean {
  const status = fstatSync(standardOutput);
  return status.isFile() || status.isBlockDevice() || (status.isCharacterDevice() && !isatty(standardOutput));
}

function writeFully(bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) {
    const written = writeSync(standardOutput, bytes, done);
    if (written === 0) throw new CheckpointError('CHKPT_IO', 'standard output takes nothing');
    done += written;
  }
}

function writeToStream(bytes: Uint8Array): Promise<void> {
  if (process.stdout.listenerCount('error') === 0) process.stdout.on('error', () => undefined);
  return new Promise((resolve, reject) => {
    process.stdout.write(bytes, (error) => (error ? reject(error) : resolve()));
  });
}
