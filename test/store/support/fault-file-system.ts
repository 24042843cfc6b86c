/**
 * A file system that does what a plan says at each call: pass it on, fail it, move fewer bytes than asked
 * for, or stop the world. The files are real, so that what is left afterwards can be looked at with other
 * tools.
 */
import { constants } from 'node:fs';
import { type FileStatus, type FileSystem, hostFileSystem, type OpenFile } from '../../../src/store/index.ts';

export type OperationName =
  | 'create'
  | 'open'
  | 'read'
  | 'write'
  | 'fstat'
  | 'fsync'
  | 'close'
  | 'rename'
  | 'link'
  | 'unlink'
  | 'mkdir'
  | 'rmdir'
  | 'readdir'
  | 'lstat'
  | 'fsync-directory';

export interface Operation {
  /** 0, 1, 2 … in the order of the calls. */
  readonly index: number;
  readonly name: OperationName;
  readonly path: string;
  /** The other path of `rename` and `link`. */
  readonly target: string | undefined;
}

/**
 * `kill`: nothing happens, and nothing ever will. `tear`: the same, but half of a write is done before.
 * `short`: a write or read moves half of the bytes. `lie`: a write claims more than it did.
 */
export type Fault = { readonly errno: string } | 'kill' | 'tear' | 'short' | 'lie' | undefined;

/** What a call throws in a world that has stopped. */
export class WorldStopped extends Error {}

export class FaultFileSystem implements FileSystem {
  readonly trace: Operation[] = [];
  plan: (operation: Operation) => Fault;
  #isStopped = false;
  readonly #open = new Set<OpenFile>();
  /** Native threads may write into its files: what they do has no faults. */
  readonly hasDescriptors: boolean;

  constructor(plan: (operation: Operation) => Fault = () => undefined, hasDescriptors = false) {
    this.plan = plan;
    this.hasDescriptors = hasDescriptors;
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  /** Closes what a stopped process had open, as its end would. */
  async release(): Promise<void> {
    for (const file of this.#open) await file.close();
    this.#open.clear();
  }

  async open(path: string, flags: number, mode?: number): Promise<OpenFile> {
    this.next(flags & constants.O_CREAT ? 'create' : 'open', path);
    const file = await hostFileSystem.open(path, flags, mode);
    this.#open.add(file);
    return new FaultFile(this, path, file, () => this.#open.delete(file));
  }

  async rename(from: string, to: string): Promise<void> {
    this.next('rename', from, to);
    await hostFileSystem.rename(from, to);
  }

  async link(existing: string, added: string): Promise<void> {
    this.next('link', existing, added);
    await hostFileSystem.link(existing, added);
  }

  async unlink(path: string): Promise<void> {
    this.next('unlink', path);
    await hostFileSystem.unlink(path);
  }

  async mkdir(path: string, mode: number): Promise<void> {
    this.next('mkdir', path);
    await hostFileSystem.mkdir(path, mode);
  }

  async rmdir(path: string): Promise<void> {
    this.next('rmdir', path);
    await hostFileSystem.rmdir(path);
  }

  async readdir(path: string): Promise<string[]> {
    this.next('readdir', path);
    return (await hostFileSystem.readdir(path)).sort();
  }

  async status(path: string): Promise<FileStatus> {
    this.next('lstat', path);
    return await hostFileSystem.status(path);
  }

  async fsyncDirectory(path: string): Promise<void> {
    this.next('fsync-directory', path);
    await hostFileSystem.fsyncDirectory(path);
  }

  /** Records a call and does what the plan says; returns what only reads and writes know how to do. */
  next(name: OperationName, path: string, target?: string): 'short' | 'lie' | 'tear' | undefined {
    if (this.#isStopped) throw new WorldStopped();
    const operation = { index: this.trace.length, name, path, target };
    this.trace.push(operation);
    const fault = this.plan(operation);
    if (fault === undefined || fault === 'short' || fault === 'lie') return fault;
    if (fault === 'tear' && name === 'write') return fault;
    if (fault === 'kill' || fault === 'tear') throw this.stop();
    throw Object.assign(new Error(`${fault.errno}: injected, ${name} '${path}'`), { code: fault.errno });
  }

  stop(): WorldStopped {
    this.#isStopped = true;
    return new WorldStopped();
  }
}

class FaultFile implements OpenFile {
  readonly #fileSystem: FaultFileSystem;
  readonly #path: string;
  readonly #file: OpenFile;
  readonly #forget: () => void;

  constructor(fileSystem: FaultFileSystem, path: string, file: OpenFile, forget: () => void) {
    this.#fileSystem = fileSystem;
    this.#path = path;
    this.#file = file;
    this.#forget = forget;
  }

  get descriptor(): number | undefined {
    return this.#fileSystem.hasDescriptors ? this.#file.descriptor : undefined;
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    const fault = this.#fileSystem.next('read', this.#path);
    const part = fault === 'short' ? target.subarray(0, half(target)) : target;
    return await this.#file.read(part, position);
  }

  async write(pieces: readonly Uint8Array[], position: number): Promise<number> {
    const fault = this.#fileSystem.next('write', this.#path);
    if (fault === undefined) return await this.#file.write(pieces, position);
    const bytes = Buffer.concat(pieces);
    const written = await this.#file.write([bytes.subarray(0, half(bytes))], position);
    if (fault === 'tear') throw this.#fileSystem.stop();
    return fault === 'lie' ? bytes.length : written;
  }

  async status(): Promise<FileStatus> {
    this.#fileSystem.next('fstat', this.#path);
    return await this.#file.status();
  }

  async fsync(): Promise<void> {
    this.#fileSystem.next('fsync', this.#path);
    await this.#file.fsync();
  }

  /** As in Linux, a close that fails has closed. */
  async close(): Promise<void> {
    try {
      this.#fileSystem.next('close', this.#path);
    } catch (error) {
      if (error instanceof WorldStopped) throw error;
      await this.#close();
      throw error;
    }
    await this.#close();
  }

  async #close(): Promise<void> {
    this.#forget();
    await this.#file.close();
  }
}

function half(bytes: Uint8Array): number {
  return Math.ceil(bytes.length / 2);
}
