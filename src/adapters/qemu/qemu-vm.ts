/**
 * A QEMU as a virtual machine: its RAM is the file of its shared memory-backend and goes through the native pipelines; everything
 * else is QEMU's own device state, one value of the context `qemu`, beside what it takes to load it.
 */
import {
  bytes,
  CheckpointError,
  type Core,
  type Device,
  defineState,
  type GuestMemory,
  type StateOf,
  statePart,
  type TrackOptions,
  trackMemory,
  type VirtualMachine,
} from '../../index.ts';
import { type MachineTracker, type TrackedMemory, TrackerPlace } from '../machine-tracker.ts';
import { RunGate } from '../run-gate.ts';
import { fieldsOf } from './answer.ts';
import { captureDeviceState, restoreDeviceState } from './device-state.ts';
import { compareFacts, factFields, type QemuIdentity, readIdentity } from './qemu-facts.ts';
import { findMemory, openMemory } from './qemu-memory.ts';
import { type QemuCommand, QemuProcess } from './qemu-process.ts';
import { QmpClient, type QmpEvent, type QmpOptions } from './qmp-client.ts';

const qemuState = defineState({ ...factFields, state: bytes() });

type QemuState = StateOf<typeof qemuState>;

export interface QemuVmOptions extends QmpOptions {
  /** Identity of the machine, checked on load. Default: QEMU's `-name`, or `qemu`. */
  readonly id?: string | undefined;
  /** Process id of QEMU, where the socket does not tell it (a listening socket that another process has opened). */
  readonly processId?: number | undefined;
  /** Load what another version of QEMU has saved. QEMU refuses state that it cannot read. */
  readonly anyVersion?: boolean | undefined;
}

/** `write-protect` sees this process only, and it is another one that writes. */
export interface QemuTrackOptions extends Omit<TrackOptions, 'process' | 'kind'> {
  /** Default: `soft-dirty`, and `digest` where the kernel has no such bits. */
  readonly kind?: 'soft-dirty' | 'digest' | 'reported';
}

export interface QemuStartOptions extends QemuVmOptions, QemuCommand {}

const waitingStatus = 'inmigrate';

export class QemuVm implements VirtualMachine, AsyncDisposable {
  readonly id: string;
  readonly cpu: { readonly vendor: string; readonly model: string };
  readonly memory: GuestMemory;
  /** Processors are part of QEMU's device state. */
  readonly cores: readonly Core[] = [];
  readonly devices: readonly Device[];
  /** For a QEMU that chkpt has started with a `vmgenid` device, which tells its guest. */
  readonly setGeneration?: (generation: string) => void;
  readonly #identity: QemuIdentity;
  readonly #options: QemuVmOptions;
  readonly #process: QemuProcess | undefined;
  readonly #gate = new RunGate(this);
  readonly #tracker = new TrackerPlace();
  #qmp: QmpClient;
  #running: boolean;
  /** QEMU was started with `-incoming defer` and has not got its state yet. */
  #isWaiting: boolean;
  /** Device state since the guest was stopped or loaded, so that two saves are equal. */
  #state: Uint8Array | undefined;
  #loaded: Uint8Array | undefined;

  private constructor(
    qmp: QmpClient,
    status: unknown,
    identity: QemuIdentity,
    memory: GuestMemory,
    options: QemuVmOptions,
    process: QemuProcess | undefined,
  ) {
    this.#options = options;
    this.#identity = identity;
    this.#process = process;
    this.memory = memory;
    this.id = options.id ?? identity.name ?? 'qemu';
    this.cpu = { vendor: identity.architecture, model: identity.facts.cpu.type };
    this.devices = [this.#device()];
    if (process?.hasGeneration) {
      this.setGeneration = (generation) => {
        process.generation = generation;
      };
    }
    this.#qmp = this.#watch(qmp);
    this.#running = status === 'running';
    this.#isWaiting = status === waitingStatus;
  }

  /**
   * Takes a QEMU that runs, stands still, or waits for a checkpoint (`-incoming defer`), by its QMP socket
   * (`-qmp unix:PATH,server=on,wait=off`). QEMU stays its owner's.
   *
   * Rejects with `CHKPT_NOT_FOUND`, `CHKPT_QMP_TIMEOUT`, `CHKPT_QMP_CLOSED`, `CHKPT_QMP_PROTOCOL`, `CHKPT_QEMU_MEMORY` (RAM is no
   * shared memory-backend: the text says which argument is missing), `CHKPT_PERMISSION`; the guest is untouched.
   */
  static async connect(path: string, options: QemuVmOptions = {}): Promise<QemuVm> {
    return QemuVm.#make(await QmpClient.connect(path, options), options, undefined);
  }

  /**
   * Starts a QEMU whose guest stands still until `resume()`. A load into it replaces the process: QEMU takes device state only at
   * its start. `close()` ends it.
   */
  static async start(options: QemuStartOptions): Promise<QemuVm> {
    const process = await QemuProcess.prepare(options);
    try {
      return await QemuVm.#make(await process.start(false, options.timeoutMs), options, process);
    } catch (error) {
      await process.remove();
      throw error;
    }
  }

  static async #make(
    qmp: QmpClient,
    options: QemuVmOptions,
    process: QemuProcess | undefined,
  ): Promise<QemuVm> {
    try {
      const { status } = fieldsOf(await qmp.execute('query-status'));
      const identity = await readIdentity(qmp);
      const files = await findMemory(qmp, identity.facts.ram, options.processId ?? qmp.processId);
      const memory = await openMemory(files);
      return new QemuVm(qmp, status, identity, memory, options, process);
    } catch (error) {
      await qmp.close();
      throw error;
    }
  }

  /** The connection, for commands of one's own; another one after a load into a QEMU that chkpt has started. */
  get qmp(): QmpClient {
    return this.#qmp;
  }

  get running(): boolean {
    return this.#running;
  }

  /** Why the machine must not run; `undefined` when it may. */
  get failure(): Error | undefined {
    return this.#gate.failure;
  }

  get dirtyTracker(): MachineTracker | undefined {
    return this.#tracker.current;
  }

  /**
   * Tells increments what changed, from the next save or load on; also `dirtyTracker`. Closed with this object. Throws `TypeError` for
   * a second one, `CHKPT_CLOSED`, and what `trackMemory` does.
   */
  trackChanges(options: QemuTrackOptions = {}): MachineTracker {
    this.#gate.checkOpen();
    const kind: string = options.kind ?? 'soft-dirty';
    if (!['soft-dirty', 'digest', 'reported'].includes(kind)) {
      throw new TypeError(`${kind} cannot see what QEMU writes`);
    }
    return this.#tracker.open(() => this.#track(options));
  }

  pause(): Promise<void> {
    return this.#gate.pause(async () => {
      try {
        await this.#qmp.execute('stop');
      } catch (error) {
        // QEMU may still carry it out, and then this, which it reads next.
        if (!this.#qmp.isEnded) void this.#qmp.execute('cont').catch(() => undefined);
        throw error;
      }
      this.#running = false;
    });
  }

  resume(): Promise<void> {
    return this.#gate.resume(async () => {
      if (this.#isWaiting) {
        throw new CheckpointError('CHKPT_VM_FAILED', `machine ${this.id} waits for a checkpoint`);
      }
      this.#state = undefined;
      if (this.#qmp.isEnded) await this.#reconnect();
      await this.#qmp.execute('cont');
      this.#running = true;
    });
  }

  beginLoad(): void {
    this.#gate.beginLoad();
    this.#loaded = undefined;
    if (this.#process !== undefined) this.#process.generation = undefined;
  }

  /** Gives QEMU the device state, in a new process where chkpt has started it. */
  async endLoad(failure?: Error): Promise<void> {
    const state = this.#loaded;
    this.#loaded = undefined;
    if (failure === undefined && state !== undefined) {
      await this.#restore(state);
      this.#isWaiting = false;
      this.#state = state;
    } else {
      this.#state = undefined;
    }
    this.#gate.endLoad(failure);
  }

  /** Lets go of QEMU, which runs on if it runs; ends one that chkpt has started. */
  close(): Promise<void> {
    return this.#gate.close(async () => {
      await this.#qmp.close();
      await this.#process?.remove();
      await this.#tracker.close();
      await this.memory.close();
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #track(options: QemuTrackOptions): TrackedMemory {
    const process = this.#processId;
    const whose = process === undefined ? { kind: 'digest' as const } : { process };
    return {
      memory: this.memory,
      open: () => trackMemory(this.memory, { ...whose, ...options }),
      isCurrent: (kind) => kind !== 'soft-dirty' || process === this.#processId,
    };
  }

  /** Another one after a load into a QEMU that chkpt has started. */
  get #processId(): number | undefined {
    return this.#options.processId ?? this.#qmp.processId;
  }

  /** A connection that was lost must not leave the guest standing still. */
  async #reconnect(): Promise<void> {
    const { path } = this.#qmp;
    const qmp = await QmpClient.connect(path, this.#options).catch((cause: unknown) => {
      const what = 'the QMP connection has ended, and there is no new one';
      throw new CheckpointError('CHKPT_QMP_CLOSED', what, { cause, details: { path } });
    });
    if (qmp.processId === this.#qmp.processId) {
      this.#qmp = this.#watch(qmp);
      return;
    }
    await qmp.close();
    throw new CheckpointError('CHKPT_QMP_CLOSED', `another process answers at ${path}`);
  }

  #device(): Device {
    const part = statePart<QemuState>({
      state: qemuState,
      get: async () => ({ ...this.#identity.facts, state: await this.#stateNow() }),
      check: (saved) => {
        const { anyVersion = false } = this.#options;
        compareFacts(saved, this.#identity.facts, { anyVersion });
        if (this.#process === undefined && !this.#isWaiting) {
          throw new CheckpointError(
            'CHKPT_QEMU_NOT_WAITING',
            `machine ${this.id} does not wait for a checkpoint`,
          );
        }
      },
      set: ({ state }) => {
        this.#loaded = state;
      },
    });
    return { id: 'qemu', deviceClass: 'qemu', contexts: [{ name: 'qemu', parts: [part] }] };
  }

  async #stateNow(): Promise<Uint8Array> {
    this.#gate.checkPaused();
    if (this.#isWaiting) {
      throw new CheckpointError(
        'CHKPT_VM_FAILED',
        `machine ${this.id} waits for a checkpoint and has no state`,
      );
    }
    this.#state ??= await captureDeviceState(this.#qmp);
    return this.#state;
  }

  async #restore(state: Uint8Array): Promise<void> {
    if (this.#process !== undefined) {
      await this.#qmp.close();
      this.#qmp = this.#watch(await this.#process.start(true, this.#options.timeoutMs));
    }
    try {
      await restoreDeviceState(this.#qmp, state);
    } catch (error) {
      await this.#process?.stop();
      const said = this.#process?.output;
      if (!said) throw error;
      throw new CheckpointError('CHKPT_QEMU_STATE', `QEMU refused the device state: ${said}`, {
        cause: error,
      });
    }
  }

  /** Others may stop and continue the guest too, and it may end by itself. */
  #watch(qmp: QmpClient): QmpClient {
    const follow = ({ event }: QmpEvent): void => {
      if (qmp !== this.#qmp) return;
      if (event === 'STOP') this.#running = false;
      if (event === 'RESUME') {
        this.#running = true;
        this.#state = undefined;
      }
    };
    qmp.onEvent(follow);
    void qmp.ended.then(() => {
      if (qmp === this.#qmp) this.#running = false;
    });
    return qmp;
  }
}
