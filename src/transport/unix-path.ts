/** The file of a UNIX socket: whose it is, what may be replaced. */
import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { connect } from 'node:net';
import { isMainThread } from 'node:worker_threads';
import { CheckpointError, fromSystemError } from '../errors/index.ts';

const socketMode = 0o600;

/** Removes what a process that is gone has left. Throws `CHKPT_IO` when somebody listens there, or the file is no socket. */
export async function clearUnixPath(path: string): Promise<void> {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status === undefined) return;
  if (!status.isSocket()) throw taken(path, 'there is a file that is no socket');
  if (await answers(path)) throw taken(path, 'somebody listens there');
  try {
    unlinkSync(path);
  } catch (error) {
    throw fromSystemError(error, 'cannot remove a socket that was left', { path });
  }
}

/** Runs `listen`, which makes the file at once, so that nobody else can connect to it at any moment. */
export function listenPrivately(path: string, listen: () => void): void {
  // Worker threads have no mask of their own, and must not change that of the process.
  const mask = isMainThread ? process.umask(0o177) : undefined;
  try {
    listen();
  } finally {
    if (mask !== undefined) process.umask(mask);
  }
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status?.isSocket() === true) chmodSync(path, socketMode);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const tell = (answer: boolean) => (): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', tell(true));
    // Only who is certainly gone is replaced.
    socket.once('error', (error: NodeJS.ErrnoException) => tell(error.code !== 'ECONNREFUSED')());
  });
}

function taken(path: string, what: string): CheckpointError {
  return new CheckpointError('CHKPT_IO', `cannot listen: ${what}`, { details: { path } });
}
