/**
 * The handshake inside the channel, both sides. docs/transport.md has the bytes and what each step proves.
 *
 *   connector                        listener
 *   hello {nonce, purpose}     →
 *                              ←     challenge {nonce, proof}
 *   proof                      →     authorise, spend the key, take a place
 *                              ←     welcome, or a refusal instead of any message
 */
import { randomBytes } from 'node:crypto';
import { CheckpointError, type ErrorCode } from '../errors/index.ts';
import type { ByteChannel } from './byte-channel.ts';
import {
  decodeMessageHeader,
  decodeRefusal,
  encodeMessage,
  encodeRefusal,
  type MessageType,
  messageHeaderBytes,
  nonceBytes,
  protocolError,
} from './handshake-message.ts';
import { type DerivedKeys, type OneTimeKey, type ProofInput, proofBytes } from './one-time-key.ts';
import { decodePurpose, encodePurpose, type Purpose } from './purpose.ts';
import { readExactly } from './read-exactly.ts';

const flagBytes = 4;
const flagProof = 1;
const flagsOf = (proof: boolean): Buffer => Buffer.from([proof ? flagProof : 0, 0, 0, 0]);

/** Throws `CHKPT_PEER_REFUSED`, `CHKPT_UNAUTHENTICATED`, `CHKPT_PEER_PROTOCOL`, `CHKPT_LINK_LOST`, and errors of the system. */
export async function greet(
  channel: ByteChannel,
  purpose: Purpose,
  keys: DerivedKeys | undefined,
  material: Uint8Array,
): Promise<void> {
  const hello = encodeMessage(
    'hello',
    randomBytes(nonceBytes),
    flagsOf(keys !== undefined),
    encodePurpose(purpose),
  );
  await channel.write(hello);
  const { header, payload } = await receive(channel, ['challenge']);
  const challenge = Buffer.concat([header, payload.subarray(0, nonceBytes + flagBytes)]);
  const hasProof = isProofWanted(payload, nonceBytes);
  if (payload.length !== nonceBytes + flagBytes + (hasProof ? proofBytes : 0)) {
    throw protocolError('a challenge of an impossible length');
  }
  if (!hasProof && keys !== undefined) throw unauthenticated('the other side has no one-time key');
  if (hasProof && keys === undefined) throw unauthenticated('the other side wants a one-time key');
  const input: ProofInput = { channel: material, hello, challenge };
  if (keys !== undefined && !keys.isProof(payload.subarray(nonceBytes + flagBytes), 'listener', input)) {
    throw unauthenticated('the other side has another one-time key');
  }
  await channel.write(encodeMessage('proof', keys?.proofOf('connector', input) ?? new Uint8Array()));
  const welcome = await receive(channel, ['welcome']);
  if (welcome.payload.length !== 0) throw protocolError('a welcome of an impossible length');
}

/** What a listener asks for and does. */
export interface Reception {
  readonly key: OneTimeKey | undefined;
  /** Keying material of the TLS channel; empty without TLS. */
  readonly material: Uint8Array;
  /** Why this purpose is not for this peer. */
  authorise(purpose: Purpose): Promise<string | undefined>;
  /** Takes the place of the connection, at once or never: why not. */
  admit(purpose: Purpose): string | undefined;
}

/**
 * The listener's side: resolves when the other end was welcomed. Throws the reason otherwise, as `greet`; who is there is told of it
 * by `refuse`.
 */
export async function receiveGuest(channel: ByteChannel, reception: Reception): Promise<Purpose> {
  const { key, material } = reception;
  const hello = await receive(channel, ['hello']);
  const purpose = decodeHello(hello.payload, key !== undefined);
  const head = encodeMessage('challenge', randomBytes(nonceBytes), flagsOf(key !== undefined));
  // The length in the header covers the proof, too.
  head.writeUInt32LE(nonceBytes + flagBytes + (key === undefined ? 0 : proofBytes), 12);
  const input: ProofInput = {
    channel: material,
    hello: Buffer.concat([hello.header, hello.payload]),
    challenge: head,
  };
  await channel.write(Buffer.concat([head, key?.keys.proofOf('listener', input) ?? Buffer.alloc(0)]));
  const { payload: proof } = await receive(channel, ['proof']);
  if (key !== undefined && !key.keys.isProof(proof, 'connector', input))
    throw unauthenticated('the proof is wrong');
  if (key === undefined && proof.length !== 0) throw protocolError('a proof that nobody asked for');

  const no = await reception.authorise(purpose);
  if (no !== undefined) throw refused(no);
  // From here on in one go: of two that come at once one is first. The key is spent before anything exists for the connection.
  // What measures the way leaves the key for what is to go there.
  const spent = purpose.kind === 'probe' ? key?.fault : key?.spend(encodePurpose(purpose));
  if (spent !== undefined) throw unauthenticated(spent);
  const full = reception.admit(purpose);
  if (full !== undefined) throw refused(full);
  await channel.write(encodeMessage('welcome'));
  return purpose;
}

function decodeHello(payload: Buffer, wantsProof: boolean): Purpose {
  if (payload.length < nonceBytes + flagBytes) throw protocolError('a hello of an impossible length');
  const hasKey = isProofWanted(payload, nonceBytes);
  const purpose = decodePurpose(payload.subarray(nonceBytes + flagBytes));
  if (typeof purpose === 'string') throw protocolError(purpose);
  if (hasKey !== wantsProof) {
    throw unauthenticated(wantsProof ? 'a one-time key is needed' : 'this side has no one-time key');
  }
  return purpose;
}

/** Tells the other side why not, if it still listens. Its own fault is not told in more words than its own code. */
export async function refuse(channel: ByteChannel, error: unknown): Promise<void> {
  const code: ErrorCode = error instanceof CheckpointError ? error.code : 'CHKPT_INTERNAL';
  const reason = error instanceof CheckpointError ? error.message : 'an internal error';
  await channel.write(encodeMessage('refusal', encodeRefusal(code, reason)));
  await channel.end();
}

interface Received {
  readonly header: Buffer;
  readonly payload: Buffer;
}

async function receive(channel: ByteChannel, allowed: readonly MessageType[]): Promise<Received> {
  const header = Buffer.alloc(messageHeaderBytes);
  await readExactly(channel, header);
  const { type, payloadBytes } = decodeMessageHeader(header, [...allowed, 'refusal']);
  const payload = Buffer.alloc(payloadBytes);
  await readExactly(channel, payload);
  if (type !== 'refusal') return { header, payload };
  const { code, reason } = decodeRefusal(payload);
  if (code === 'CHKPT_UNAUTHENTICATED') throw unauthenticated(`the other side says: ${reason}`);
  throw refused(`the other side says: ${reason}${code === undefined ? '' : ` (${code})`}`);
}

function isProofWanted(payload: Buffer, at: number): boolean {
  if (payload.length < at + flagBytes) throw protocolError('a message of an impossible length');
  const flags = payload.readUInt32LE(at);
  if ((flags & ~flagProof) !== 0) throw protocolError('a flag of the handshake that is not known');
  return flags === flagProof;
}

function unauthenticated(what: string): CheckpointError {
  return new CheckpointError('CHKPT_UNAUTHENTICATED', what);
}

function refused(what: string): CheckpointError {
  return new CheckpointError('CHKPT_PEER_REFUSED', what);
}
