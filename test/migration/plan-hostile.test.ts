/** Probes that mean no good: each is ended, and the destination takes probes and guests as before. */
import { randomBytes, randomUUID } from 'node:crypto';
import { expect, it } from 'vitest';
import { sendVm } from '../../src/index.ts';
import { checkpointDigest } from '../../src/memory/digest.ts';
import { ProbeSink } from '../../src/migration/destination/probe-sink.ts';
import { encodeToDestination } from '../../src/migration/wire/messages.ts';
import { encodeMark } from '../../src/migration/wire/probe-record.ts';
import { encodeHeader } from '../../src/migration/wire/record.ts';
import { RecordChannel } from '../../src/migration/wire/record-channel.ts';
import {
  type Connection,
  connect,
  type Listener,
  listen,
  type ProbePurpose,
} from '../../src/transport/index.ts';
import { listening } from './plan-support.ts';
import { makePair, migrate, type Pair } from './support.ts';

const mib = 2 ** 20;
const digest = await checkpointDigest();
const refused = { code: 'CHKPT_PEER_REFUSED' };

function purposeOf(stream = 0, streams = 1, migration: string = randomUUID()): ProbePurpose {
  return { kind: 'probe', migration, guest: 'guest', stream, streams };
}

/** Resolves when the other end has hung up, to what it had said. */
async function gone(connection: Connection): Promise<Buffer> {
  const said: Buffer[] = [];
  const scratch = Buffer.alloc(64 * 1024);
  try {
    for (;;) {
      const bytes = await connection.read(scratch);
      if (bytes === 0) break;
      said.push(Buffer.from(scratch.subarray(0, bytes)));
    }
  } catch {
    // A reset.
  }
  connection.destroy();
  return Buffer.concat(said);
}

/** A question, as it stands on the wire; its answer, when nothing has come before it, is the same. */
const question = recordOf('probe', encodeMark({ number: 7, bytes: 0 }));

function recordOf(type: 'probe' | 'control', payload: Uint8Array): Buffer {
  return Buffer.concat([encodeHeader(type, payload, digest), payload]);
}

/** A sink behind a listener. */
async function sinkAt(
  pair: Pair,
  bounds: { readonly bytesMax?: number; readonly msMax?: number },
): Promise<{ readonly listener: Listener; readonly sink: ProbeSink }> {
  const sink = new ProbeSink({ digest, checkOffer: async () => undefined, ...bounds });
  const listener = await listen(`unix:${pair.folder}/sink`, { probe: (purpose) => sink.admit(purpose) });
  void (async () => {
    for (;;) void sink.serve(await listener.accept());
  })().catch(() => undefined);
  return { listener, sink };
}

/** A probe that means well gets its answer. */
async function expectServed({ address }: Listener): Promise<void> {
  const connection = await connect(address, purposeOf());
  const channel = new RecordChannel(connection, digest);
  await channel.sendData([randomBytes(1000)]);
  await channel.send('probe', encodeMark({ number: 7, bytes: 0 }));
  const answer = await channel.next();
  expect(answer).toEqual({ type: 'probe', payload: encodeMark({ number: 7, bytes: 1000 }) });
  connection.destroy();
  await connection.closed;
}

it('more bytes than a probe may have end it, over all of its connections together', async () => {
  await using pair = await makePair({ memoryBytes: mib });
  const { listener } = await sinkAt(pair, { bytesMax: 3 * mib });
  const name = randomUUID();
  const both = await Promise.all([0, 1].map((i) => connect(listener.address, purposeOf(i, 2, name))));
  const answers = both.map(async (connection) => {
    const channel = new RecordChannel(connection, digest);
    const sent = channel.sendData([new Uint8Array(2 * mib)]);
    await sent.then(() => channel.send('probe', encodeMark({ number: 1, bytes: 0 }))).catch(() => undefined);
    return await gone(connection);
  });
  const said = (await Promise.all(answers)).filter((bytes) => bytes.length > 0);
  expect(said.length).toBeLessThanOrEqual(1);
  await expectServed(listener);
  await listener.close();
});

it('a probe that goes on is ended when its time is up', async () => {
  await using pair = await makePair({ memoryBytes: mib });
  const { listener } = await sinkAt(pair, { msMax: 100 });
  const connection = await connect(listener.address, purposeOf());
  const channel = new RecordChannel(connection, digest);
  const asking = async (): Promise<never> => {
    for (;;) {
      await channel.send('probe', encodeMark({ number: 1, bytes: 0 }));
      await channel.next();
    }
  };
  await expect(asking()).rejects.toMatchObject({ code: 'CHKPT_LINK_LOST' });
  connection.destroy();
  await expectServed(listener);
  await listener.close();
});

it('records that no probe has end it', async () => {
  await using pair = await makePair({ memoryBytes: mib });
  const { listener } = await sinkAt(pair, {});
  const offer = recordOf('control', encodeToDestination({ type: 'offer', description: new Uint8Array(8) }));
  const long = Buffer.alloc(16);
  long.writeUInt32LE(0xffff_ffff, 0);
  long.writeUInt16LE(2, 4);
  for (const [what, bytes] of Object.entries({
    noise: randomBytes(4096),
    'a stream': encodeHeader('streamEnd', new Uint8Array(), digest),
    'two offers': Buffer.concat([offer, offer]),
    'a length of 4 GiB': long,
    'a number that cannot be': recordOf('probe', new Uint8Array(16).fill(0xff)),
    'another message': recordOf('control', encodeToDestination({ type: 'cancel' })),
  })) {
    const connection = await connect(listener.address, purposeOf());
    await connection.writeAll([bytes, question]).catch(() => undefined);
    // What follows is not answered any more.
    expect((await gone(connection)).includes(question), what).toBe(false);
    await expectServed(listener);
  }
  await listener.close();
});

it('one probe at a time: others, and more connections than it said, are refused with the reason', async () => {
  await using pair = await makePair({ memoryBytes: mib });
  const { address, stop } = await listening(pair);
  const name = randomUUID();
  const first = await connect(address, purposeOf(0, 2, name));
  await expect(connect(address, purposeOf())).rejects.toMatchObject({
    ...refused,
    message: expect.stringContaining('busy with another probe'),
  });
  const second = await connect(address, purposeOf(1, 2, name));
  await expect(connect(address, purposeOf(1, 2, name))).rejects.toMatchObject(refused);
  await expect(connect(address, purposeOf(0, 17))).rejects.toMatchObject(refused);
  for (const connection of [first, second]) connection.destroy();
  await stop();
});

it('a migration that comes ends a probe and is not kept waiting; while it is there probes are refused', async () => {
  await using pair = await makePair({ memoryBytes: 16 * mib, pagesPerSecond: 1000 });
  await pair.source.resume();
  let isGone = false;
  let late: Promise<unknown> | undefined;
  const { send, receive } = await migrate(pair, {
    through: async (address) => {
      const connection = await connect(address, purposeOf());
      void gone(connection).then(() => {
        isGone = true;
      });
      return address;
    },
    send: {
      bandwidth: 16 * mib,
      onProgress: ({ phase, round }) => {
        if (phase === 'memory' && round === 1) {
          expect(isGone).toBe(true);
          late ??= connect(`unix:${pair.folder}/socket`, purposeOf()).catch((error: unknown) => error);
        }
      },
    },
  });
  await send;
  await receive;
  expect(await late).toMatchObject({ ...refused, message: expect.stringContaining('a guest is on its way') });
});

it('who is not authorised to bring the guest cannot measure either', async () => {
  await using pair = await makePair({ memoryBytes: mib });
  const psk = { key: randomBytes(32), uses: 2 };
  const { address, stop } = await listening(pair, { psk });
  for (const options of [{}, { psk: { key: randomBytes(32) } }]) {
    await expect(
      sendVm(pair.source, address, { plan: true, windowMs: 50, ...options }),
    ).rejects.toMatchObject({
      code: 'CHKPT_UNAUTHENTICATED',
    });
  }
  const plan = await sendVm(pair.source, address, { plan: true, windowMs: 50, psk });
  expect(plan.link.bytes).toBeGreaterThan(0);
  await stop();
});

it('a destination that does not know probes is told from one that cannot be reached', async () => {
  await using pair = await makePair({ memoryBytes: mib });
  await using listener = await listen(`unix:${pair.folder}/old`);
  await expect(sendVm(pair.source, listener.address, { plan: true, windowMs: 50 })).rejects.toMatchObject({
    ...refused,
    message: expect.stringContaining('nothing is measured here'),
  });
});
