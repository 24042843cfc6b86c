/** Ends that are known and still do not do their part. The deadlines are 10 s: only with CHKPT_HOSTILE=full. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, describe, expect, test } from 'vitest';
import { openStreamStore, receiveCheckpoint } from '../../src/index.ts';
import { connect, listen } from '../../src/transport/index.ts';

const isFull = process.env['CHKPT_HOSTILE'] === 'full';
if (!isFull) console.warn('peers that are slow are not tested: they take 10 s each; CHKPT_HOSTILE=full does');
const folder = mkdtempSync(`${tmpdir()}/chkpt-slow-`);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.skipIf(!isFull)('a peer', () => {
  test.concurrent('that never reads is given up', async () => {
    const listener = await listen(`unix:${folder}/a`);
    const [near, far] = await Promise.all([
      connect(listener.address, { kind: 'checkpoint' }),
      listener.accept(),
    ]);
    await expect(near.write(new Uint8Array(64 * 1024 * 1024))).rejects.toMatchObject({
      code: 'CHKPT_TIMEOUT',
    });
    far.destroy();
    await listener.close();
  }, 30_000);

  test.concurrent('that sends a byte a second is given up, and told why', async () => {
    const address = `unix:${folder}/b`;
    let receiving: Promise<unknown> = Promise.resolve();
    await new Promise<void>((resolve) => {
      receiving = receiveCheckpoint(openStreamStore(address, { onListening: () => resolve() }), 'mem:slow');
    });
    receiving.catch(() => undefined);
    const near = await connect(address, { kind: 'checkpoint' });
    const header = Buffer.alloc(8);
    header.writeUInt32LE(1, 0);
    header.writeUInt32LE(1000, 4);
    await near.write(header);
    // The magic, which takes eight of them, so that it is the pace that is wrong.
    const sent = [0x89, 0x43, 0x4b, 0x50, 0x0d, 0x0a, 0x1a, 0x0a, 1, 0, 0, 0].values();
    const timer = setInterval(
      () => void near.write(Uint8Array.of(sent.next().value ?? 0)).catch(() => undefined),
      1000,
    );
    near.idleMs = 0;
    const said = Buffer.alloc(1000);
    await near.read(said);
    expect(said.readUInt32LE(0)).toBe(17);
    clearInterval(timer);
    near.destroy();
    await expect(receiving).rejects.toMatchObject({ code: 'CHKPT_TIMEOUT' });
  }, 30_000);

  test.concurrent('that is silent after the end leaves the sender in doubt, not waiting', async () => {
    const listener = await listen(`unix:${folder}/c`);
    const writer = await openStreamStore(`unix:${folder}/c`).openWriter({
      uuid: '5f0c9d36-7c8e-4a52-9d6f-0a1b2c3d4e5f',
    });
    const far = await listener.accept();
    const facts = {
      uuid: '5f0c9d36-7c8e-4a52-9d6f-0a1b2c3d4e5f',
      parent: undefined,
      epoch: 0n,
      root: '0'.repeat(64),
    };
    await expect(writer.commit({ ...facts, bytes: 0 })).rejects.toMatchObject({
      code: 'CHKPT_UNACKNOWLEDGED',
    });
    far.destroy();
    await listener.close();
  }, 30_000);
});
