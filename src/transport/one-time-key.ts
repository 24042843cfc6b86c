/**
 * One-time keys: what is derived from one, the proofs that the two ends have it, and when it is spent.
 *
 * A proof is HMAC-SHA256 over the role of who gives it, keying material exported from the TLS channel (zeros without TLS), and every byte
 * of hello and challenge: version, purpose, both nonces. It is worth nothing on another channel, for another purpose, or a second time.
 */
import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import type { PskOptions } from './security.ts';

export const proofBytes = 32;
const lifeMsDefault = 60_000;

export interface ProofInput {
  /** Keying material of the TLS channel; empty without TLS. */
  readonly channel: Uint8Array;
  /** The whole messages, without the proof in the challenge. */
  readonly hello: Uint8Array;
  readonly challenge: Uint8Array;
}

/** What follows from a key. Nobody can get from one of these to another, or back. */
export class DerivedKeys {
  /** Key of TLS-PSK, 32 bytes. */
  readonly tls: Buffer;
  /** Identity of TLS-PSK: as random as the key, so that nobody can ask which keys there are. */
  readonly identity: string;
  readonly #proof: Buffer;

  constructor(key: Uint8Array) {
    const derive = (info: string, byteCount: number): Buffer =>
      Buffer.from(hkdfSync('sha256', key, Buffer.alloc(0), `chkpt link 1 ${info}`, byteCount));
    this.tls = derive('tls', 32);
    this.identity = derive('identity', 16).toString('hex');
    this.#proof = derive('proof', 32);
  }

  proofOf(role: 'connector' | 'listener', { channel, hello, challenge }: ProofInput): Buffer {
    const binding = Buffer.alloc(32);
    binding.set(channel);
    const hmac = createHmac('sha256', this.#proof);
    for (const part of [Buffer.from(`chkpt link 1 ${role}\0`), binding, hello, challenge]) hmac.update(part);
    return hmac.digest();
  }

  /** In constant time. */
  isProof(found: Uint8Array, role: 'connector' | 'listener', input: ProofInput): boolean {
    return found.length === proofBytes && timingSafeEqual(found, this.proofOf(role, input));
  }
}

/** The key of a listener. */
export class OneTimeKey {
  readonly keys: DerivedKeys;
  readonly #expiresAt: number;
  readonly #uses: number;
  readonly #used = new Set<string>();

  /** Its life begins now. */
  constructor(options: PskOptions) {
    this.keys = new DerivedKeys(options.key);
    this.#expiresAt = performance.now() + (options.lifeMs ?? lifeMsDefault);
    this.#uses = options.uses ?? 1;
  }

  get hasExpired(): boolean {
    return performance.now() >= this.#expiresAt;
  }

  get isSpent(): boolean {
    return this.#used.size >= this.#uses;
  }

  /** Why it is good for nothing any more. */
  get fault(): string | undefined {
    if (this.hasExpired) return 'the one-time key has expired';
    return this.isSpent ? 'the one-time key has been used' : undefined;
  }

  /**
   * Uses the key up for what `purpose` says, each purpose once. Whoever has proved the key calls this before anything else exists for the
   * connection; why not, when it is too late.
   */
  spend(purpose: Uint8Array): string | undefined {
    const { fault } = this;
    if (fault !== undefined) return fault;
    const name = Buffer.from(purpose).toString('hex');
    if (this.#used.has(name)) return 'the one-time key has been used';
    this.#used.add(name);
    return undefined;
  }
}
