/**
 * Processes that die of SIGKILL around the commit: the source, the destination, both. What died is begun anew from its journal. At every
 * moment at most one host runs the guest, which a lease in a shared file tells, and in the end it is where docs/migration.md says.
 *
 * `CHKPT_KILLS=all` for every moment, `CHKPT_KILLS=3` for all of them three times.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { SyntheticVm } from '../../src/adapters/synthetic/index.ts';
import {
  MigrationInDoubtError,
  type ResumeMigrationOptions,
  receiveVm,
  resumeMigration,
} from '../../src/index.ts';
import { journalPath, readJournal } from '../../src/migration/journal.ts';
import type { JournalRole } from '../../src/migration/journal-text.ts';
import { buildModules } from '../cli/support/dist.ts';
import { Authority, hasOpenssl } from '../transport/support/pki.ts';
import { HostProcess } from './host-process.ts';
import { leasesOf, runUnderLease } from './lease.mjs';

const asked = process.env['CHKPT_KILLS'];
const times = asked === undefined || asked === 'all' ? 1 : Number(asked);
const build = buildModules();
const script = new URL('./killed-host.mjs', import.meta.url).pathname;

type End = 'moved' | 'stayed' | 'lost' | 'inDoubt';
/** What is promised; * stands before moments that are always tried. */
type Table = readonly (readonly [point: string, ...ends: End[]])[];

/** The destination lives. Without the source's memory the guest is where it was whole and promised, or nowhere. */
const sourceDies: Table = [
  ['before record begin', 'stayed'],
  ['after record begin', 'lost'],
  ['after send offer', 'lost'],
  ['after receipt of accept', 'lost'],
  ['* before send end', 'lost'],
  // A link that is newer takes its place before END is read.
  ['after send end', 'moved', 'lost'],
  ['* after receipt of prepared', 'moved'],
  ['before record commit', 'moved'],
  ['* after record commit', 'moved'],
  ['before send commit', 'moved'],
  ['* after send commit', 'moved'],
  ['after receipt of running', 'moved'],
  ['* before record released', 'moved'],
  ['after record released', 'moved'],
  ['before send done', 'moved'],
  ['after send done', 'moved'],
];

/** The source lives, and has the guest until it has said COMMIT to one that may run it. */
const destinationDies: Table = [
  ['after receipt of offer', 'moved'],
  ['* after send accept', 'moved'],
  ['after receipt of end', 'stayed'],
  ['before record prepared', 'stayed'],
  ['* after record prepared', 'stayed'],
  ['before send prepared', 'stayed'],
  ['after send prepared', 'stayed'],
  ['after receipt of commit', 'stayed'],
  ['* before record own', 'stayed'],
  ['* after record own', 'inDoubt'],
  ['before send running', 'inDoubt'],
  ['* after send running', 'moved'],
];

/** How long a host may take until it dies. */
const patienceMs = 20_000;

const hostOf = (
  role: JournalRole,
  folder: string,
  migration: string,
  point: string | undefined,
): HostProcess =>
  new HostProcess(process.execPath, [script, build, role, folder, migration, ...(point ? [point] : [])]);

interface Scene extends AsyncDisposable {
  readonly folder: string;
  readonly migration: string;
  readonly source: HostProcess;
  readonly destination: HostProcess;
}

/** A migration one of whose hosts has died at `point`. */
async function begin(victim: JournalRole, point: string, security?: object): Promise<Scene> {
  const folder = await mkdtemp(join(tmpdir(), 'chkpt-kill-'));
  if (security !== undefined) await writeFile(join(folder, 'security.json'), JSON.stringify(security));
  const migration = randomUUID();
  const pointOf = (role: JournalRole): string | undefined =>
    role === victim ? `${role} ${point}` : undefined;
  const destination = hostOf('destination', folder, migration, pointOf('destination'));
  const source = hostOf('source', folder, migration, pointOf('source'));
  const { exited } = victim === 'source' ? source : destination;
  const timer = setTimeout(() => void Promise.all([source.kill(), destination.kill()]), patienceMs);
  expect(await exited).toBe('SIGKILL');
  clearTimeout(timer);
  return {
    ...{ folder, migration, source, destination },
    async [Symbol.asyncDispose]() {
      await Promise.all([source.kill(), destination.kill()]);
      await rm(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** A receiver that takes the place of one that was killed. */
async function receiveAgain(folder: string): Promise<
  AsyncDisposable & {
    readonly vm: SyntheticVm;
    readonly arrived: () => string | undefined;
    readonly end: Promise<string>;
    readonly stop: () => void;
  }
> {
  const vm = await SyntheticVm.create({ id: 'guest', memoryBytes: 2 * 2 ** 20, pagesPerSecond: 500 });
  let arrived: string | undefined;
  const resume = vm.resume.bind(vm);
  vm.resume = async () => {
    arrived = await vm.digest();
    await resume();
  };
  runUnderLease(vm, join(folder, 'lease'), 'destination again');
  const stop = new AbortController();
  const receive = receiveVm(vm, `unix:${join(folder, 'socket')}`, {
    ...{ journal: join(folder, 'destination'), lingerMs: 500, signal: stop.signal },
  });
  const end = receive.then(
    () => 'moved',
    (error: unknown) => (error as { code: string }).code,
  );
  return {
    ...{ vm, end, arrived: () => arrived, stop: () => stop.abort() },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await end;
      await vm.close();
    },
  };
}

async function resume({ folder, migration }: Scene, security: ResumeMigrationOptions = {}): Promise<End> {
  try {
    const { outcome } = await resumeMigration(migration, {
      journal: join(folder, 'source'),
      inDoubtMs: 5000,
      ...security,
    });
    return outcome;
  } catch (error) {
    if (error instanceof MigrationInDoubtError) return 'inDoubt';
    throw error;
  }
}

const lastOf = async ({ folder, migration }: Scene, role: JournalRole): Promise<string | undefined> =>
  (await readJournal(journalPath(join(folder, role), migration, role)))?.last;

/** Of a table, what is tried this time. */
function momentsOf(table: Table): readonly (readonly [point: string, ...ends: End[]])[] {
  const chosen = table.filter(([point]) => asked !== undefined || point.startsWith('*'));
  const plain = chosen.map(([point, ...ends]) => [point.replace('* ', ''), ...ends] as const);
  return Array.from({ length: times }, () => plain).flat();
}

const limit = { timeout: 30_000 + times * 90_000 };

function tell(what: string, ends: readonly End[]): void {
  const counts: Partial<Record<End, number>> = {};
  for (const end of ends) counts[end] = (counts[end] ?? 0) + 1;
  console.log(`${ends.length} times killed: ${what}: ${JSON.stringify(counts)}`);
}

it(
  'a source that is killed around the commit: the guest is on the destination when it was promised there',
  limit,
  async () => {
    const ends: End[] = [];
    for (const [point, ...allowed] of momentsOf(sourceDies)) {
      await using scene = await begin('source', point);
      const end = await resume(scene);
      ends.push(end);
      expect([point, allowed]).toEqual([point, expect.arrayContaining([end])]);
      const { taken, violations } = leasesOf(join(scene.folder, 'lease'));
      expect([point, violations]).toEqual([point, []]);
      expect([point, taken]).toEqual([point, end === 'moved' ? ['source', 'destination'] : ['source']]);
      if (end === 'moved') {
        expect(await scene.destination.says('end')).toBe('moved');
        expect([point, scene.destination.heard('arrived')]).toEqual([point, scene.source.heard('stopped')]);
      } else expect([point, scene.destination.heard('end')]).not.toEqual([point, 'moved']);
      // Asked again, it knows: nothing is done twice.
      if (end !== 'stayed') expect(await resume(scene)).toBe(end);
    }
    tell('source', ends);
  },
);

it(
  'a destination that is killed around the commit: the guest goes on where it was, unless it may have run there',
  limit,
  async () => {
    const ends: End[] = [];
    for (const [point, ...allowed] of momentsOf(destinationDies)) {
      await using scene = await begin('destination', point);
      const { source } = scene;
      await using again = await receiveAgain(scene.folder);
      let end = String(await source.says('end'));
      if (end === 'CHKPT_IN_DOUBT' && !allowed.includes('inDoubt'))
        end = String(await source.says('settled'));
      const isMoved = end === 'moved';
      const known: End = isMoved ? 'moved' : end === 'CHKPT_IN_DOUBT' ? 'inDoubt' : 'stayed';
      ends.push(known);
      expect([point, allowed]).toEqual([point, expect.arrayContaining([known])]);
      const { taken, violations } = leasesOf(join(scene.folder, 'lease'));
      expect([point, violations]).toEqual([point, []]);
      if (isMoved && point !== 'after send running') {
        expect(await again.end).toBe('moved');
        expect([point, again.arrived()]).toEqual([point, source.heard('stopped')]);
        expect(taken).toEqual(['source', 'destination again']);
      } else {
        expect([point, again.vm.running]).toEqual([point, false]);
        expect(taken).not.toContain('destination again');
        // I1: what has run there never runs here again.
        if (known === 'stayed')
          expect([point, taken]).toEqual([point, taken.filter((one) => one === 'source')]);
      }
      expect([point, source.heard('running') ?? false]).toEqual([point, known === 'stayed']);
    }
    tell('destination', ends);
  },
);

/** What two journals can come to when both processes are gone. */
function endOfBoth(source: string | undefined, destination: string | undefined): End {
  if (source === 'released') return 'moved';
  if (source === 'commit' && destination === 'own') return 'inDoubt';
  return source === 'begin' || source === 'commit' ? 'lost' : 'stayed';
}

it(
  'both hosts are killed around the commit: nobody runs the guest, and nobody says that it runs',
  limit,
  async () => {
    const ends: End[] = [];
    const moments = (['source', 'destination'] as const).flatMap((victim) =>
      momentsOf(victim === 'source' ? sourceDies : destinationDies).map(
        ([point]) => [victim, point] as const,
      ),
    );
    const some = asked === undefined ? moments.filter((_, at) => at % 2 === 1) : moments;
    for (const [victim, point] of some) {
      await using scene = await begin(victim, point);
      await (victim === 'source' ? scene.destination : scene.source).kill();
      const records = [await lastOf(scene, 'source'), await lastOf(scene, 'destination')] as const;
      // OWN stands behind a COMMIT that is durable.
      if (records[1] === 'own') expect(['commit', 'released']).toContain(records[0]);
      await using again = await receiveAgain(scene.folder);
      const end = await resume(scene);
      ends.push(end);
      expect([victim, point, end]).toEqual([victim, point, endOfBoth(...records)]);
      const { taken, violations } = leasesOf(join(scene.folder, 'lease'));
      expect([point, violations, again.vm.running]).toEqual([point, [], false]);
      expect(taken).not.toContain('destination again');
    }
    tell('both', ends);
  },
);

/** The link of the source that was killed, and one more. */
async function goOnOver(given: object, security: ResumeMigrationOptions): Promise<void> {
  await using scene = await begin('source', 'before send commit', given);
  expect(await resume(scene, security)).toBe('moved');
  expect(await scene.destination.says('end')).toBe('moved');
  expect(scene.destination.heard('arrived')).toBe(scene.source.heard('stopped'));
  const { taken, violations } = leasesOf(join(scene.folder, 'lease'));
  expect([taken, violations]).toEqual([['source', 'destination'], []]);
}

it('a migration is gone on with by a one-time key that is good for one link more, and by no other', async () => {
  const key = randomBytes(32);
  const uses = (count: number) => ({
    url: 'tcp://127.0.0.1:0',
    psk: { key: key.toString('hex'), uses: count },
  });
  await goOnOver(uses(3), { psk: { key } });
  // Both connections of the link that was there have used it up; and nobody gets in without it.
  for (const [count, security] of [
    [2, { psk: { key } }],
    [3, { psk: { key: randomBytes(32) } }],
    [3, {}],
  ] as const) {
    await using scene = await begin('source', 'before send commit', uses(count));
    expect(await resume(scene, { inDoubtMs: 1500, ...security })).toBe('inDoubt');
    expect(scene.destination.heard('arrived')).toBe(undefined);
  }
});

it.skipIf(!hasOpenssl)(
  'a migration is gone on with over TLS, by the peer that began it and by no other',
  async () => {
    const authority = new Authority('test');
    const [mine, other] = [authority.issue('host'), authority.issue('other')];
    const tls = { ...mine, ca: authority.cert };
    const given = { url: 'tls://127.0.0.1:0', tls };
    await goOnOver(given, { tls });
    await using scene = await begin('source', 'before send commit', given);
    // Certified, and somebody else.
    expect(await resume(scene, { inDoubtMs: 1500, tls: { ...other, ca: authority.cert } })).toBe('inDoubt');
    expect(scene.destination.heard('arrived')).toBe(undefined);
  },
);
