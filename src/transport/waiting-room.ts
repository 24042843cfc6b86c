/**
 * Connections of a listener that are not authenticated yet: bounded in number and in time. When there is no room the oldest gives way,
 * because whoever is in earnest is through within milliseconds; a crowd that only sits there keeps nobody out.
 */
import { CheckpointError } from '../errors/index.ts';
import { unauthenticatedCountMax, unauthenticatedPerAddressMax } from '../limits.ts';

export interface Visitor {
  /** Whoever counts as one: an IP address. */
  readonly address: string;
  /** Ends the connection. */
  readonly dismiss: (why: CheckpointError) => void;
  readonly timer: NodeJS.Timeout;
}

export class WaitingRoom {
  /** In the order in which they came. */
  readonly #visitors = new Set<Visitor>();

  /** Makes room and lets in. `dismiss` is called when the visitor has to go: too late, or pushed out. */
  enter(address: string, limitMs: number, dismiss: Visitor['dismiss']): Visitor {
    const same = [...this.#visitors].filter((visitor) => visitor.address === address);
    if (same.length >= unauthenticatedPerAddressMax)
      this.dismiss(same[0], 'pushed out by others from its address');
    if (this.#visitors.size >= unauthenticatedCountMax)
      this.dismiss([...this.#visitors][0], 'pushed out by others');
    const onLate = (): void => this.dismiss(visitor, `not authenticated within ${limitMs} ms`);
    const visitor: Visitor = { address, dismiss, timer: setTimeout(onLate, limitMs) };
    this.#visitors.add(visitor);
    return visitor;
  }

  /** The visitor is known now, or gone. */
  leave(visitor: Visitor): void {
    clearTimeout(visitor.timer);
    this.#visitors.delete(visitor);
  }

  /** Sends away; nothing when there is nobody, or nobody any more. */
  dismiss(visitor: Visitor | undefined, why: string): void {
    if (visitor === undefined || !this.#visitors.has(visitor)) return;
    this.leave(visitor);
    visitor.dismiss(new CheckpointError('CHKPT_TIMEOUT', why));
  }

  dismissAll(why: string): void {
    for (const visitor of [...this.#visitors]) this.dismiss(visitor, why);
  }
}
