/** One migration that is cut, and what has to be true of it afterwards. */
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import {
  listMigrations,
  MigrationInDoubtError,
  type ReceiveReport,
  type ReceiveVmOptions,
  type SendReport,
  type SendVmOptions,
} from '../../../src/index.ts';
import { makePair, migrate, type Pair, watch } from '../support.ts';
import { type Cut, CutProxy, type Place, textOf } from './cut-proxy.ts';
import type { Message } from './named-messages.ts';
import { type Scenario, securityOf } from './scenarios.ts';

export interface Seen extends Place {
  readonly message: Message;
}

export interface Ended {
  readonly end: 'moved' | 'stayed';
  readonly wasInDoubt: boolean;
  /** All cuts came to pass. */
  readonly isCut: boolean;
  /** Messages that passed after what is cut before, in their order. */
  readonly seen: readonly Seen[];
  /** What the journals of both hosts ask for. */
  readonly journals: string;
}

const machine = { memoryBytes: 2 ** 19, pagesPerSecond: 400, guestLike: true } as const;
const sendOptions: SendVmOptions = {
  ...{ downtimeTargetMs: 1000, downtimeMaxMs: 4000, totalMaxMs: 6000, strategy: 'force', threads: 1 },
  ...{ reconnectMs: 5000, inDoubtMs: 600, handshakeMs: 2000 },
};
// The address is kept longer than any silence lasts and the attempts behind it.
const receiveOptions: ReceiveVmOptions = {
  reconnectMs: 5000,
  lingerMs: process.env['CHKPT_CUTS'] === 'all' ? 10_000 : 6000,
  handshakeMs: 2000,
  threads: 1,
};
/** How long a destination that has heard nothing goes on listening, before the test ends it. */
const listenMs = 1500;
/** How long everything may take that goes on behind the end of a migration. */
const patienceMs = 30_000;

export async function runCut(scenario: Scenario, cut: Cut | undefined): Promise<Ended> {
  const { before } = scenario;
  await using pair = await makePairOf(scenario);
  const watched = scenario.isUnwatched ? {} : watch(pair);
  await pair.source.resume();
  const giveUp = { source: new AbortController(), destination: new AbortController() };
  const seen: Seen[] = [];
  const cuts = [before, cut].filter((one) => one !== undefined);
  const onMessage = (place: Place, message: Message, cutCount: number): void => {
    if (cutCount === (before === undefined ? 0 : 1)) seen.push({ ...place, message });
    const { givesUp } = scenario;
    if (givesUp !== undefined && textOf(givesUp.at) === textOf(place)) giveUp[givesUp.who].abort();
  };
  const { scheme, psk } = securityOf(scenario.carrier);
  let proxy: CutProxy | undefined;
  const { send, receive } = await migrate(pair, {
    send: { ...sendOptions, ...scenario.send, psk, signal: giveUp.source.signal },
    receive: { ...receiveOptions, ...scenario.receive, psk, signal: giveUp.destination.signal },
    ...(scheme === 'tcp' && { url: `tcp://${nextHost()}:0` }),
    through: async (target) => {
      const path = scheme === 'unix' ? join(pair.folder, 'proxy') : undefined;
      const isTls = scenario.carrier.startsWith('TLS');
      proxy = await CutProxy.open({ target, path, isTls, cuts, onMessage });
      return proxy.address;
    },
  });
  try {
    const ends = await endsOf(send, receive, giveUp.destination);
    await expectOneOwner(pair, ends);
    if (ends.end === 'moved') expect(watched.arrived, 'what stopped arrives').toBe(watched.stopped);
    // The last word may come over a connection that the destination is giving up.
    const isTold = cut === undefined && seen.some(({ kind }) => kind === 'done');
    const journals = await expectNothingLeft(pair, ends.end, isTold);
    const isCut = proxy?.cutCount === cuts.length;
    return { end: ends.end, wasInDoubt: ends.wasInDoubt, isCut, seen, journals };
  } catch (error) {
    // What hangs would hang here, too.
    giveUp.destination.abort();
    giveUp.source.abort();
    throw error;
  } finally {
    await proxy?.[Symbol.asyncDispose]();
  }
}

let hostCount = 0;
/** A loopback address of its own for each migration: a port that is free again may be another one's the next moment. */
function nextHost(): string {
  hostCount += 1;
  return `127.${1 + (hostCount >> 16)}.${(hostCount >> 8) & 255}.${hostCount & 255}`;
}

async function makePairOf({ isOther = false, isUnwatched = false }: Scenario): Promise<Pair> {
  // What it never touches comes in the background, or not at all.
  const few = { writePages: { first: 0, count: 32 } };
  const pair = await makePair(isUnwatched ? { ...machine, ...few } : machine);
  if (!isOther) return pair;
  const other = await makePair({ ...machine, memoryBytes: 2 ** 21 });
  await other.source.close();
  await pair.destination.close();
  return { ...pair, destination: other.destination };
}

interface Ends {
  readonly end: 'moved' | 'stayed';
  readonly wasInDoubt: boolean;
  readonly received: ReceiveReport | Error;
}

/** What both ends say, when they know. */
async function endsOf(
  send: Promise<SendReport>,
  receive: Promise<ReceiveReport>,
  stop: AbortController,
): Promise<Ends> {
  const sent = await within(send.catch((error: Error) => error));
  const wasInDoubt = sent instanceof MigrationInDoubtError;
  const known = wasInDoubt ? await within(sent.resolve()) : sent instanceof Error ? 'stayed' : 'moved';
  const timer = known === 'stayed' ? setTimeout(() => stop.abort(), listenMs) : undefined;
  const received = await within(receive.catch((error: Error) => error));
  clearTimeout(timer);
  if (!(received instanceof Error)) await within(received.postcopy?.resident ?? Promise.resolve());
  expect(received instanceof Error ? 'stayed' : 'moved', `${sent} and ${received}`).toBe(known);
  return { end: known as 'moved' | 'stayed', wasInDoubt, received };
}

async function within<T>(work: Promise<T>): Promise<T> {
  const late = sleep(patienceMs, undefined, { ref: false }).then(() => {
    throw new Error(`nothing is known after ${patienceMs} ms`);
  });
  return await Promise.race([work, late]);
}

async function expectOneOwner({ source, destination }: Pair, { end }: Ends): Promise<void> {
  expect([source.running, destination.running], 'one host runs the guest').toEqual([
    end === 'stayed',
    end === 'moved',
  ]);
  const [owner, other] = end === 'moved' ? [destination, source] : [source, destination];
  await owner.pause();
  expect((await owner.checkStamps()).damaged).toBe(0);
  if (end === 'moved') await expect(other.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
}

/** No journal is in use, none says anything else than how it ended, and the socket is gone. */
async function expectNothingLeft(pair: Pair, end: Ends['end'], isTold: boolean): Promise<string> {
  const folders = ['source', 'destination'].map((name) => join(pair.folder, name));
  const isBusy = async (): Promise<boolean> => {
    const names = await Promise.all(folders.map((folder) => readdir(folder).catch(() => [])));
    return names.flat().some((name) => name.endsWith('.lock')) || existsSync(join(pair.folder, 'socket'));
  };
  const until = performance.now() + patienceMs;
  while ((await isBusy()) && performance.now() < until) await sleep(50);
  expect(await isBusy(), 'somebody has a journal or a socket').toBe(false);
  const [ours, theirs] = await Promise.all(folders.map((folder) => listMigrations(folder)));
  const lastsOf = (facts: typeof ours): string => (facts ?? []).map(({ last }) => last ?? 'nothing').join();
  const text = `${lastsOf(ours)}|${lastsOf(theirs)}`;
  const legal = end === 'moved' ? /^released\|own$/ : /^(|abort|reclaim)\|(|nothing|aborted)$/;
  expect(text, 'journals').toMatch(legal);
  if (end === 'moved' && isTold) expect(theirs?.map(({ task }) => task)).toEqual(['none']);
  return text;
}
