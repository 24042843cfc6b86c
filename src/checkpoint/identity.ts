/**
 * What a loaded machine is: the one that was saved, which there must not be twice, or another one that begins as its equal.
 *
 * A machine that goes on claims the checkpoint in its store as the last step before it may run, and a claim whose load fails
 * is withdrawn: so a crash leaves either a checkpoint that can still be continued, or one that is claimed, never two machines.
 */
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { openCheckpoint as openInStore } from '../context/checkpoint.ts';
import { CheckpointError } from '../errors/index.ts';
import { checkpointDigest } from '../memory/digest.ts';
import type { Claim, Store, StoreClaims } from '../store/index.ts';
import type { VirtualMachine } from './virtual-machine.ts';

/** `continue`: the machine that was saved goes on. `clone`: another one begins as it was. */
export type LoadAs = 'continue' | 'clone';

export interface IdentityOptions {
  /**
   * `continue`: once for each checkpoint; a second time is `CHKPT_CONTINUED`. `clone`: the machine is given a new generation id before
   * it runs (`VirtualMachine.setGeneration`), so that its guest can tell that it is another one. Default: neither; nothing is recorded.
   */
  readonly as?: LoadAs | undefined;
  /** Continues although it was continued before; clones a machine that cannot be given a generation id. Default false. */
  readonly force?: boolean | undefined;
}

/** Part of `LoadReport`. */
export interface IdentityReport {
  /** Of a clone: its generation id, text form of a random UUID. */
  readonly generation?: string | undefined;
  /** Of a machine that goes on by force: who had gone on with the checkpoint before. */
  readonly earlier?: Claim | undefined;
}

type IdentifiedMachine = Pick<VirtualMachine, 'id' | 'setGeneration'>;

/** One for each load: `prepare`, then `take` before the machine may run, then `undo` if it must not. */
export interface MachineIdentity {
  /** Throws `CHKPT_CONTINUED`, and what the store's claims or the machine throw. */
  take(): Promise<IdentityReport>;
  /** The load has failed: the machine does not run. */
  undo(): Promise<void>;
}

/**
 * Checks, before anything of the machine is touched, that it can be loaded so. Throws `TypeError`, `CHKPT_UNSUPPORTED`,
 * `CHKPT_CONTINUED`, and errors of the store.
 */
export async function prepareIdentity(
  vm: IdentifiedMachine,
  store: Store,
  uuid: string,
  options: IdentityOptions,
): Promise<MachineIdentity> {
  const { as, force = false } = options;
  if (as === 'clone') return prepareClone(vm, force);
  if (as !== 'continue') return { take: async () => ({}), undo: async () => undefined };
  const { claims } = store;
  if (claims === undefined) {
    throw new CheckpointError(
      'CHKPT_UNSUPPORTED',
      'this store cannot record that a checkpoint is continued',
      {
        details: { store: store.url },
      },
    );
  }
  const identity = new Continuation(vm, store, claims, uuid, force);
  await identity.check();
  return identity;
}

/** Throws `TypeError`. */
export function checkIdentityOptions({ as, force }: IdentityOptions): void {
  if (as !== undefined && as !== 'continue' && as !== 'clone') {
    throw new TypeError(`a machine is loaded as continue or clone, not ${String(as)}`);
  }
  if (force !== undefined && typeof force !== 'boolean') throw new TypeError('force must be true or false');
}

function prepareClone(vm: IdentifiedMachine, force: boolean): MachineIdentity {
  if (vm.setGeneration === undefined && !force) {
    throw new CheckpointError(
      'CHKPT_UNSUPPORTED',
      `machine ${vm.id} cannot be told its generation: its guest would not notice that it is a clone (force accepts that)`,
    );
  }
  return {
    async take() {
      const generation = randomUUID();
      await vm.setGeneration?.(generation);
      return { generation };
    },
    undo: async () => undefined,
  };
}

class Continuation implements MachineIdentity {
  readonly #store: Store;
  readonly #claims: StoreClaims;
  readonly #claim: Omit<Claim, 'timeMs'>;
  readonly #force: boolean;
  #isOurs = false;

  constructor(vm: IdentifiedMachine, store: Store, claims: StoreClaims, uuid: string, force: boolean) {
    this.#store = store;
    this.#claims = claims;
    this.#claim = { uuid, by: `machine ${vm.id}, process ${process.pid} on ${hostname()}` };
    this.#force = force;
  }

  /** A refusal that can be known early leaves the machine as it is. */
  async check(): Promise<void> {
    const earlier = await this.#claims.find(this.#claim.uuid);
    if (earlier !== undefined && !this.#force) throw this.#continued(earlier);
  }

  async take(): Promise<IdentityReport> {
    const earlier = await this.#claims.take({ ...this.#claim, timeMs: Date.now() });
    this.#isOurs = earlier === undefined;
    if (earlier !== undefined && !this.#force) throw this.#continued(earlier);
    if (!this.#force) await this.#checkPlace();
    return { earlier };
  }

  async undo(): Promise<void> {
    if (!this.#isOurs) return;
    this.#isOurs = false;
    // A claim that stays can be forced; who loads must hear of what failed first.
    await this.#claims.withdraw(this.#claim.uuid).catch(() => undefined);
  }

  /** A save that replaces the checkpoint drops its claims: whoever still reads the old one would find none. */
  async #checkPlace(): Promise<void> {
    const now = await openInStore(this.#store, { mode: 'load', digest: await checkpointDigest() });
    const { uuid } = now;
    await now.close();
    if (uuid === this.#claim.uuid) return;
    throw new CheckpointError('CHKPT_CONTINUED', 'another checkpoint has replaced the one that was loaded', {
      details: { store: this.#store.url, expected: this.#claim.uuid, actual: uuid },
    });
  }

  #continued({ uuid, by, timeMs }: Claim): CheckpointError {
    const when = timeMs === 0 ? 'at an unknown time' : `at ${new Date(timeMs).toISOString()}`;
    return new CheckpointError('CHKPT_CONTINUED', `the checkpoint was continued ${when} by ${by}`, {
      details: { store: this.#store.url, actual: uuid },
    });
  }
}
