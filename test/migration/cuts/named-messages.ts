/**
 * Names the messages that pass on a connection of a migration, from its bytes: those of the handshake and the records behind them, or the
 * records of TLS, of which only the lengths can be read.
 */
import { decodeToDestination, decodeToSource } from '../../../src/migration/wire/messages.ts';
import { recordHeaderBytes, recordTypes } from '../../../src/migration/wire/record.ts';
import { messageHeaderBytes, messageTypes, nonceBytes } from '../../../src/transport/handshake-message.ts';
import { decodePurpose } from '../../../src/transport/purpose.ts';

export type Direction = 'toDestination' | 'toSource';

export interface Message {
  readonly kind: string;
  readonly headerBytes: number;
  /** With the header. */
  readonly totalBytes: number;
}

/** Bytes of one message, from `at` on. */
export interface Piece {
  readonly message: Message;
  readonly at: number;
  readonly bytes: Buffer;
}

/** What all connections of one migration know of each other. */
export class Conversation {
  /** By number: what a receipt is for. */
  readonly streams = new Map<number, string>();
  guestRuns = false;
  ordinal = 0;
}

/** One connection, both of its directions. */
export class Dialogue {
  readonly conversation: Conversation;
  readonly isTls: boolean;
  /** Which of the connections of its link: 0 is control; undefined: not known yet. */
  index: number | undefined;
  stream = '';

  constructor(conversation: Conversation, isTls: boolean) {
    this.conversation = conversation;
    this.isTls = isTls;
    // TLS hides what it says of itself: they come one after the other.
    if (isTls) this.index = conversation.ordinal;
    conversation.ordinal += 1;
  }

  get channel(): string {
    return ['control', 'pages', 'urgent'][this.index ?? 9] ?? 'unknown';
  }
}

const headBytes = nonceBytes + 4;
const tlsHeaderBytes = 5;

/** Cuts one direction into messages. What has no name yet waits for the rest of it; each was written in one go. */
export class MessageReader {
  readonly #dialogue: Dialogue;
  readonly #direction: Direction;
  #held: Buffer = Buffer.alloc(0);
  #message: Message | undefined;
  #at = 0;
  #greets = true;
  #count = 0;

  constructor(dialogue: Dialogue, direction: Direction) {
    this.#dialogue = dialogue;
    this.#direction = direction;
  }

  *take(bytes: Buffer): Generator<Piece> {
    let rest = Buffer.concat([this.#held, bytes]);
    this.#held = Buffer.alloc(0);
    while (rest.length > 0) {
      if (this.#message === undefined) {
        this.#message = this.#nameOf(rest);
        this.#at = 0;
      }
      const message = this.#message;
      if (message === undefined) {
        this.#held = rest;
        return;
      }
      const piece = rest.subarray(0, message.totalBytes - this.#at);
      const at = this.#at;
      this.#at += piece.length;
      if (this.#at === message.totalBytes) this.#message = undefined;
      rest = rest.subarray(piece.length);
      yield { message, at, bytes: piece };
    }
  }

  #nameOf(bytes: Buffer): Message | undefined {
    if (this.#dialogue.isTls) return this.#tlsRecord(bytes);
    return this.#greets ? this.#greeting(bytes) : this.#record(bytes);
  }

  #tlsRecord(bytes: Buffer): Message | undefined {
    if (bytes.length < tlsHeaderBytes) return undefined;
    this.#count += 1;
    const totalBytes = tlsHeaderBytes + bytes.readUInt16BE(3);
    return { kind: `TLS record ${this.#count}`, headerBytes: tlsHeaderBytes, totalBytes };
  }

  #greeting(bytes: Buffer): Message | undefined {
    if (bytes.length < messageHeaderBytes) return undefined;
    const totalBytes = messageHeaderBytes + bytes.readUInt32LE(12);
    if (bytes.length < totalBytes) return undefined;
    const code = bytes.readUInt16LE(10);
    const kind = Object.entries(messageTypes).find(([, number]) => number === code)?.[0] ?? 'unknown';
    if (kind === 'hello') {
      const purpose = decodePurpose(bytes.subarray(messageHeaderBytes + headBytes, totalBytes));
      if (typeof purpose === 'object' && purpose.kind === 'migration') this.#dialogue.index = purpose.stream;
    }
    if (kind === 'proof' || kind === 'welcome') this.#greets = false;
    return { kind, headerBytes: messageHeaderBytes, totalBytes };
  }

  #record(bytes: Buffer): Message | undefined {
    if (bytes.length < recordHeaderBytes) return undefined;
    const totalBytes = recordHeaderBytes + bytes.readUInt32LE(0);
    const type = recordTypes[bytes.readUInt16LE(4)] ?? 'unknown';
    if (type !== 'data' && bytes.length < totalBytes) return undefined;
    const kind = this.#kindOf(type, bytes.subarray(recordHeaderBytes, totalBytes));
    return { kind, headerBytes: recordHeaderBytes, totalBytes };
  }

  #kindOf(type: string, payload: Buffer): string {
    const dialogue = this.#dialogue;
    const { conversation } = dialogue;
    if (type === 'control') return this.#control(payload);
    if (type === 'streamBegin') {
      const kind = ['memory', 'state', 'missing'][payload.readUInt32LE(12)] ?? 'unknown';
      const round = conversation.guestRuns ? 'late pages' : payload.readUInt32LE(16) === 0 ? 'first' : 'rest';
      dialogue.stream = kind === 'memory' ? round : kind;
      conversation.streams.set(payload.readUInt32LE(8), dialogue.stream);
    }
    return type.startsWith('stream') || type === 'data' ? `${type} of ${dialogue.stream}` : type;
  }

  #control(payload: Buffer): string {
    if (this.#direction === 'toDestination') return decodeToDestination(payload).type;
    const message = decodeToSource(payload);
    const { conversation } = this.#dialogue;
    if (message.type === 'running') conversation.guestRuns = true;
    return message.type === 'got' ? `got of ${conversation.streams.get(message.stream)}` : message.type;
  }
}
