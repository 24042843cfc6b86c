/**
 * Measures the way to a destination that listens: whether it would take the guest, how long a word takes there and back, and how many bytes of
 * noise it gets in a second over so many connections. Nothing remains there.
 */
import { randomBytes } from 'node:crypto';
import { CheckpointError } from '../../errors/index.ts';
import type { Digest64 } from '../../format/digest.ts';
import type { ConnectOne } from '../source/source-link.ts';
import { decodeToSource, encodeToDestination } from '../wire/messages.ts';
import { decodeMark, encodeMark, type ProbeMark } from '../wire/probe-record.ts';
import { wrong } from '../wire/record.ts';
import { RecordChannel } from '../wire/record-channel.ts';
import type { Pace } from '../wire/stream-stores.ts';
import type { LinkFacts } from './report.ts';

export interface LinkProbeOptions {
  readonly connectOne: ConnectOne;
  readonly digest: Digest64;
  readonly streams: number;
  readonly pace: Pace;
  /** What `pace` lets through, bytes per second. */
  readonly bandwidth: number | undefined;
  /** How long bytes are sent, milliseconds. */
  readonly ms: number;
  /** What the machine looks like, for the destination to say no to. */
  readonly description: Uint8Array;
  readonly signal: AbortSignal;
}

const pings = 9;
/** Sizes of a piece: the destination answers behind each, so it is some 20 ms of the link. */
const pieceLeast = 64 * 1024;
const pieceMost = 1024 * 1024;
const pieceMs = 20;
/** A slow link is given this long for the first answers. */
const slowMs = 6000;
const marksLeast = 4;
/** More does not make it any surer. */
const bytesEnough = 256 * 1024 ** 2;
/** Of the time: connections start slowly. */
const rampShare = 0.25;

/** What the destination had when an answer came. */
interface Sample {
  readonly ms: number;
  readonly bytes: number;
}

/**
 * Rejects as `connect`; with `CHKPT_PEER_REFUSED` where the guest would be refused, or probes are (older destinations, busy ones); with
 * `CHKPT_LINK_LOST`, `CHKPT_TIMEOUT`, `CHKPT_PEER_PROTOCOL`; with the reason of `signal`.
 */
export async function probeLink(options: LinkProbeOptions): Promise<LinkFacts> {
  const { connectOne, digest, streams, signal } = options;
  const channels: RecordChannel[] = [];
  const onAbort = (): void => {
    for (const channel of channels) channel.destroy(signal.reason);
  };
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    signal.throwIfAborted();
    for (let index = 0; index < streams; index += 1) {
      const channel = new RecordChannel(await connectOne(index, streams, signal), digest);
      channels.push(channel);
      signal.throwIfAborted();
      if (index === 0) await offer(channel, options.description);
    }
    const rttMs = await roundTrip(channels[0] as RecordChannel);
    return { streams, rttMs, ...(await flood(channels, options)) };
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
    for (const channel of channels) channel.destroy();
  }
}

/** Resolves when the destination would take the guest. */
async function offer(channel: RecordChannel, description: Uint8Array): Promise<void> {
  await channel.send('control', encodeToDestination({ type: 'offer', description }));
  let reason = 'the destination did not want the guest';
  for (;;) {
    const record = await channel.next();
    if (record.type !== 'control') throw wrong(`a ${record.type} record for an answer`);
    const answer = decodeToSource(record.payload);
    if (answer.type === 'accept') return;
    if (answer.type === 'dropped') throw new CheckpointError('CHKPT_PEER_REFUSED', reason);
    if (answer.type === 'reason') reason = `${answer.code}: ${answer.text}`;
  }
}

async function nextMark(channel: RecordChannel): Promise<ProbeMark> {
  const record = await channel.next();
  if (record.type !== 'probe') throw wrong(`a ${record.type} record in a probe`);
  return decodeMark(record.payload);
}

/** The median of some, milliseconds. */
async function roundTrip(channel: RecordChannel): Promise<number> {
  const times: number[] = [];
  for (let number = 0; number < pings; number += 1) {
    const begin = performance.now();
    await channel.send('probe', encodeMark({ number, bytes: 0 }));
    if ((await nextMark(channel)).number !== number) throw wrong('an answer to another question');
    times.push(performance.now() - begin);
  }
  return times.sort((a, b) => a - b)[Math.floor(pings / 2)] as number;
}

async function flood(
  channels: readonly RecordChannel[],
  { pace, bandwidth = Number.POSITIVE_INFINITY, ms, signal }: LinkProbeOptions,
): Promise<Omit<LinkFacts, 'streams' | 'rttMs'>> {
  const noise = randomBytes(pieceMost);
  const least = Math.min(pieceLeast, Math.ceil((bandwidth * pieceMs) / 1000));
  const got = channels.map(() => 0);
  const samples: Sample[] = [{ ms: 0, bytes: 0 }];
  const over = new AbortController();
  const stop = AbortSignal.any([signal, over.signal]);
  const begin = performance.now();
  const last = (): Sample => samples[samples.length - 1] as Sample;
  const isEnough = (): boolean => {
    const elapsed = performance.now() - begin;
    const isLate = elapsed >= ms && (samples.length > marksLeast || elapsed >= slowMs);
    return isLate || last().bytes >= bytesEnough;
  };
  const write = async (channel: RecordChannel): Promise<void> => {
    for (let number = 0; !isEnough(); number += 1) {
      const { ms: at, bytes } = last();
      const share = at === 0 ? 0 : ((bytes / at) * pieceMs) / channels.length;
      const piece = noise.subarray(0, Math.min(Math.max(Math.floor(share), least), pieceMost));
      await pace(piece.length, stop);
      await channel.sendData([piece]);
      await channel.send('probe', encodeMark({ number, bytes: 0 }));
    }
  };
  const read = async (channel: RecordChannel, index: number): Promise<void> => {
    while (!isEnough()) {
      const { bytes } = await nextMark(channel);
      if (bytes < (got[index] as number)) throw wrong('fewer bytes than before');
      got[index] = bytes;
      samples.push({ ms: performance.now() - begin, bytes: got.reduce((sum, one) => sum + one, 0) });
    }
  };
  const work = channels.flatMap((channel, index) => [write(channel), read(channel, index)]);
  const slow = new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, slowMs);
    stop.addEventListener('abort', () => clearTimeout(timer), { once: true });
  });
  try {
    // The first who has seen enough ends it: what is under way is of no interest any more.
    await Promise.race([...work.map((one) => one.then(() => undefined)), slow]);
  } finally {
    over.abort();
    for (const channel of channels) channel.destroy();
    await Promise.allSettled(work);
  }
  return rateOf(samples);
}

/** Over the time behind the start, while answers came. Throws `CHKPT_TIMEOUT` when none did. */
function rateOf(samples: readonly Sample[]): Omit<LinkFacts, 'streams' | 'rttMs'> {
  const last = samples[samples.length - 1] as Sample;
  if (last.bytes === 0)
    throw new CheckpointError('CHKPT_TIMEOUT', 'the destination does not take what is sent');
  const from = samples.findLast((sample) => sample.ms <= rampShare * last.ms && sample.bytes < last.bytes);
  const first = from ?? (samples[0] as Sample);
  return { rate: (1000 * (last.bytes - first.bytes)) / Math.max(last.ms - first.ms, 0.01), ...last };
}
