/** A decoder written from docs/encryption.md alone: it shares no line with src/store/seal. Throws `Error`s that say what is wrong. */
import { createDecipheriv, createHash, createHmac, hkdfSync } from 'node:crypto';

const magic = '8c434b530d0a1a0a';

export interface Opened {
  readonly stream: Buffer;
  readonly records: number;
  readonly recordBytes: number;
  readonly algorithm: string;
  readonly keyId: string;
}

/** The content of a sealed stream. */
export function openSealed(sealed: Buffer, key: Buffer): Opened {
  const header = sealed.subarray(0, 104);
  if (header.toString('hex', 0, 8) !== magic) throw new Error('magic');
  const checksum = createHash('sha256').update(header.subarray(0, 96)).digest();
  if (!checksum.subarray(0, 8).equals(header.subarray(96))) throw new Error('checksum');
  if (header.readUInt16LE(8) !== 1) throw new Error('version');
  const algorithm = ['', 'aes-256-gcm', 'chacha20-poly1305'][header.readUInt8(10)];
  if (!algorithm) throw new Error('algorithm');
  const recordBytes = 2 ** header.readUInt8(11);
  if (recordBytes < 2 ** 12 || recordBytes > 2 ** 22) throw new Error('record size');
  if (header.readUInt32LE(12) !== 0) throw new Error('not zero');
  const keyId = Buffer.from(hkdfSync('sha256', key, '', 'chkpt key id v1', 16));
  if (!keyId.equals(header.subarray(16, 32))) throw new Error('another key');
  const info = Buffer.concat([Buffer.from('chkpt seal v1'), header.subarray(0, 64)]);
  const keys = Buffer.from(hkdfSync('sha256', key, header.subarray(32, 64), info, 64));
  const mac = createHmac('sha256', keys.subarray(32)).update(header.subarray(0, 64)).digest();
  if (!mac.equals(header.subarray(64, 96))) throw new Error('header forged');

  const open = (index: number, last: number, stored: Buffer, data?: Buffer): Buffer => {
    const nonce = Buffer.alloc(12);
    nonce.writeUInt32LE(index, 0);
    nonce.writeUInt8(last, 8);
    const decipher = createDecipheriv(algorithm as 'aes-256-gcm', keys.subarray(0, 32), nonce, {
      authTagLength: 16,
    });
    if (data !== undefined) decipher.setAAD(data);
    decipher.setAuthTag(stored.subarray(-16));
    return Buffer.concat([decipher.update(stored.subarray(0, -16)), decipher.final()]);
  };
  const body = sealed.subarray(104, -16);
  const records: Buffer[] = [];
  for (let at = 0; at < body.length; at += recordBytes + 16) {
    records.push(open(records.length, 0, body.subarray(at, at + recordBytes + 16)));
  }
  const stream = Buffer.concat(records);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(stream.length));
  open(records.length, 1, sealed.subarray(-16), length);
  return { stream, records: records.length, recordBytes, algorithm, keyId: keyId.toString('hex') };
}
