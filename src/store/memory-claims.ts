/** Claims of the checkpoints in a space of `mem:`: gone with the process, as they are. */
import type { Claim, StoreClaims } from './claims.ts';

export class MemoryClaims {
  /** By name of the checkpoint, then by UUID. */
  readonly #claims = new Map<string, Map<string, Claim>>();

  /** Those of the place `name`. */
  at(name: string): StoreClaims {
    return {
      find: async (uuid) => this.#claims.get(name)?.get(uuid),
      take: async (claim) => {
        const claims = this.#claims.get(name) ?? new Map<string, Claim>();
        this.#claims.set(name, claims);
        const earlier = claims.get(claim.uuid);
        if (earlier === undefined) claims.set(claim.uuid, claim);
        return earlier;
      },
      withdraw: async (uuid) => {
        this.#claims.get(name)?.delete(uuid);
      },
    };
  }

  /** Another checkpoint has taken the place, or none. */
  keepOnly(name: string, uuid: string | undefined): void {
    const kept = uuid === undefined ? undefined : this.#claims.get(name)?.get(uuid);
    if (kept === undefined) this.#claims.delete(name);
    else this.#claims.set(name, new Map([[kept.uuid, kept]]));
  }
}
