/**
 * The state of everything in a QEMU but its RAM, as QEMU's own migration stream: with the capability `x-ignore-shared` it leaves
 * shared RAM out. It goes over a UNIX socket in a folder that only we can enter.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fromSystemError } from '../../errors/index.ts';
import { CheckpointError } from '../../index.ts';
import { deferred } from '../../util/deferred.ts';
import { fieldsOf } from './answer.ts';
import type { QmpClient } from './qmp-client.ts';

/** A checkpoint holds at most 256 MiB of values; a video card of 64 MiB is part of this. */
export const deviceStateBytesMax = 192 * 1024 * 1024;

const pollMs = 2;
/** Bytes per second: QEMU's limit is made for networks. */
const unlimited = 2 ** 48;

/** REQUIRES: the guest is stopped. Rejects with `CHKPT_QEMU_STATE` and what `QmpClient.execute` rejects with. */
export async function captureDeviceState(qmp: QmpClient): Promise<Uint8Array> {
  await checkCanMigrate(qmp);
  await ignoreShared(qmp);
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': unlimited });
  return withSocketFolder(async (path) => {
    const receiver = await Receiver.listen(path);
    try {
      await qmp.execute('migrate', { uri: `unix:${path}` });
      await Promise.race([untilMigrated(qmp), receiver.failed, lossOf(qmp)]);
      return await Promise.race([receiver.received, lossOf(qmp)]);
    } catch (error) {
      await cancelMigration(qmp).catch(() => undefined);
      throw error;
    } finally {
      receiver.close();
    }
  });
}

/** REQUIRES: QEMU was started with `-incoming defer`. Resolves when its state is set; the guest stands still. */
export async function restoreDeviceState(qmp: QmpClient, state: Uint8Array): Promise<void> {
  await ignoreShared(qmp);
  await withSocketFolder(async (path) => {
    await qmp.execute('migrate-incoming', { uri: `unix:${path}` });
    const socket = await connectTo(path);
    try {
      socket.end(state);
      await Promise.race([untilLoaded(qmp), endOf(qmp)]);
    } finally {
      socket.destroy();
    }
  });
}

async function ignoreShared(qmp: QmpClient): Promise<void> {
  const capabilities = [{ capability: 'x-ignore-shared', state: true }];
  await qmp.execute('migrate-set-capabilities', { capabilities });
}

/** QEMU does not migrate a guest a second time that has not run since: whoever saved it before has to have let it run. */
async function checkCanMigrate(qmp: QmpClient): Promise<void> {
  const { status } = fieldsOf(await qmp.execute('query-status'));
  if (status !== 'postmigrate') return;
  const what =
    'the guest has not run since QEMU last gave its device state, and QEMU gives it once: let it run first';
  throw new CheckpointError('CHKPT_QEMU_STATE', what);
}

async function untilMigrated(qmp: QmpClient): Promise<void> {
  for (const begin = performance.now(); ; await sleep(pollMs)) {
    const { status, 'error-desc': said } = fieldsOf(await qmp.execute('query-migrate'));
    if (status === 'completed') return;
    if (status === 'failed' || status === 'cancelled') {
      throw new CheckpointError(
        'CHKPT_QEMU_STATE',
        `QEMU could not give its device state: ${said ?? status}`,
      );
    }
    checkTime(qmp, begin, 'give its device state');
  }
}

/** A migration that still waits would keep the guest from running; QEMU cancels it in its own time. */
async function cancelMigration(qmp: QmpClient): Promise<void> {
  await qmp.execute('migrate_cancel');
  for (const begin = performance.now(); ; await sleep(pollMs)) {
    const { status } = fieldsOf(await qmp.execute('query-migrate'));
    if (status === 'completed' || status === 'failed' || status === 'cancelled' || status === undefined)
      return;
    checkTime(qmp, begin, 'cancel its migration');
  }
}

async function untilLoaded(qmp: QmpClient): Promise<void> {
  for (const begin = performance.now(); ; await sleep(pollMs)) {
    const { status } = fieldsOf(await qmp.execute('query-status'));
    if (status !== 'inmigrate') return;
    checkTime(qmp, begin, 'take its device state');
  }
}

function checkTime(qmp: QmpClient, begin: number, what: string): void {
  if (performance.now() - begin < qmp.timeoutMs) return;
  throw new CheckpointError('CHKPT_QMP_TIMEOUT', `QEMU did not ${what} in ${qmp.timeoutMs} ms`);
}

/** Rejects when the connection is lost. */
async function lossOf(qmp: QmpClient): Promise<never> {
  throw await qmp.ended;
}

/** Rejects when QEMU goes away: that is how it answers state which it cannot read. */
async function endOf(qmp: QmpClient): Promise<never> {
  const cause = await qmp.ended;
  throw new CheckpointError('CHKPT_QEMU_STATE', 'QEMU ended while its device state was moved', { cause });
}

async function withSocketFolder<T>(work: (path: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'chkpt-qemu-'));
  try {
    return await work(join(folder, 'state'));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function connectTo(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => resolve(socket));
    // Later errors show as the end of QEMU or as a load that does not come to its end.
    socket.on('error', (error) => reject(fromSystemError(error, 'cannot connect to QEMU', { path })));
  });
}

/** Takes one connection and all that it brings. */
class Receiver {
  readonly received: Promise<Uint8Array>;
  /** Rejects when `received` does, and never resolves: to be raced with something that comes first. */
  readonly failed: Promise<never>;
  readonly #server: Server;
  #socket: Socket | undefined;

  private constructor(server: Server) {
    this.#server = server;
    const whole = deferred<Uint8Array>();
    const failed = deferred<never>();
    whole.promise.catch((error: unknown) => failed.reject(error));
    failed.promise.catch(() => undefined);
    this.received = whole.promise;
    this.failed = failed.promise;
    server.on('connection', (socket) => {
      this.#socket = socket;
      server.close();
      const parts: Buffer[] = [];
      let bytes = 0;
      socket.on('data', (part) => {
        parts.push(part);
        bytes += part.length;
        if (bytes > deviceStateBytesMax) socket.destroy(tooLong());
      });
      socket.on('end', () => whole.resolve(Buffer.concat(parts)));
      socket.on('error', (error) => whole.reject(fromSystemError(error, 'device state of QEMU')));
    });
  }

  static listen(path: string): Promise<Receiver> {
    const server = createServer();
    const receiver = new Receiver(server);
    return new Promise((resolve, reject) => {
      server.once('error', (error) => reject(fromSystemError(error, `cannot listen on ${path}`, { path })));
      server.listen(path, () => resolve(receiver));
    });
  }

  close(): void {
    this.#server.close();
    this.#socket?.destroy();
  }
}

function tooLong(): CheckpointError {
  const what = `the device state of QEMU has more than ${deviceStateBytesMax} bytes`;
  return new CheckpointError('CHKPT_QEMU_STATE', what);
}
