/**
 * What the stores on files need of the host: its files, and who else is running. Tests give other ones.
 */
import { errnoOf, type FileSystem, hostFileSystem } from './file-system.ts';

/** The processes of the host, as far as it takes to tell a temporary in use from one left behind. */
export interface ProcessTable {
  /** Number of this process; part of the names of its temporaries. */
  readonly pid: number;
  /** Wall clock when this process started, milliseconds since 1970. */
  readonly startedMs: number;
  /** False only when there is certainly no such process. */
  isAlive(pid: number): boolean;
}

export interface StoreEnvironment {
  readonly fileSystem: FileSystem;
  readonly processes: ProcessTable;
}

/** The processes that this one can see: those of its PID name space. */
export const hostProcesses: ProcessTable = {
  pid: process.pid,
  startedMs: Date.now() - process.uptime() * 1000,
  isAlive(pid) {
    try {
      process.kill(pid, 0);
      return true;
    } catch (error) {
      return errnoOf(error) !== 'ESRCH';
    }
  },
};

export const hostEnvironment: StoreEnvironment = { fileSystem: hostFileSystem, processes: hostProcesses };

/** Clocks of file systems tick more coarsely than those of processes. */
const clockSlackMs = 2000;

/**
 * True when the process that made a temporary is gone.
 *
 * A temporary with our own number may be that of an earlier process: in a container every run has the same
 * number. It is ours only when it changed since we started.
 */
export async function isLeftBehind(
  environment: StoreEnvironment,
  path: string,
  pid: number,
): Promise<boolean> {
  const { fileSystem, processes } = environment;
  if (pid !== processes.pid) return !processes.isAlive(pid);
  try {
    return (await fileSystem.status(path)).changedMs < processes.startedMs - clockSlackMs;
  } catch {
    return false;
  }
}
