/**
 * Migrations between two hosts with networks of their own, over a link with a rate: each end a process in a network namespace, real TCP
 * and TLS between them, and a cable that is throttled, pulled, and swallows what is sent.
 */
import { randomBytes, X509Certificate } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { SyntheticVm, type SyntheticVmOptions } from '../../src/adapters/synthetic/index.ts';
import { loadVm, type SendReport, type SendVmOptions } from '../../src/index.ts';
import { pageBytes } from '../../src/limits.ts';
import { buildModules } from '../cli/support/dist.ts';
import { Authority, hasOpenssl } from '../transport/support/pki.ts';
import type { HostProcess } from './host-process.ts';
import { leasesOf } from './lease.mjs';
import { bedsMissing, hasIpv6, NetworkBed, type Side } from './network-bed.ts';

if (bedsMissing !== undefined) console.log(`two hosts are not tested: ${bedsMissing}`);
const hasUserfault = existsSync('/dev/userfaultfd');
if (!hasUserfault) console.log('post-copy between two hosts is not tested: no /dev/userfaultfd');
if (!hasIpv6) console.log('two hosts with IPv6 are not tested: the kernel has none');

const script = new URL('./bed-host.mjs', import.meta.url).pathname;
const mebibyte = 2 ** 20;
/** Bytes per millisecond. */
const bytesOf = (megabits: number): number => (megabits * 1e6) / 8 / 1000;

interface Plan {
  readonly megabits?: number;
  readonly machine?: SyntheticVmOptions;
  readonly send?: SendVmOptions;
  /** Where the destination listens; default `tcp://` and its address. */
  readonly url?: (bed: NetworkBed) => string;
  /** As JSON; default `insecure`. */
  readonly security?: Readonly<Record<Side, unknown>>;
  /** Points of points.mjs at which a host waits until it is told to go on. */
  readonly halts?: Readonly<Partial<Record<Side, string>>>;
}

interface Scene extends AsyncDisposable {
  readonly bed: NetworkBed;
  readonly source: HostProcess;
  readonly destination: HostProcess;
  readonly leases: () => ReturnType<typeof leasesOf>;
}

const small: Plan = { machine: { memoryBytes: 8 * mebibyte } };
/** On its way for seconds. */
const slow: Plan = { megabits: 90, machine: { memoryBytes: 32 * mebibyte, pagesPerSecond: 200 } };

/** The upper half of its memory no guest writes. */
const machineOf = ({ memoryBytes = 64 * mebibyte, ...others }: SyntheticVmOptions = {}) => {
  const half = Number(memoryBytes) / pageBytes / 2;
  return {
    machine: {
      memoryBytes: Number(memoryBytes),
      pagesPerSecond: 500,
      writePages: { first: 0, count: half },
      ...others,
    },
    untouched: { first: half, count: half },
  };
};

/** A migration that is under way. */
async function begin(plan: Plan = {}): Promise<Scene> {
  const build = buildModules();
  const folder = await mkdtemp(join(tmpdir(), 'chkpt-bed-'));
  const bed = NetworkBed.create(plan.megabits ?? 200);
  const hosts: HostProcess[] = [];
  const dispose = async (): Promise<void> => {
    await Promise.all(hosts.map((host) => host.kill()));
    bed[Symbol.dispose]();
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  };
  const start = (role: Side, url: string): HostProcess => {
    const { security = { source: { insecure: true }, destination: { insecure: true } }, halts = {} } = plan;
    const options = { codec: 'raw', downtimeTargetMs: 200, inDoubtMs: 500, ...plan.send };
    const facts = { build, role, url, folder, ...machineOf(plan.machine), options };
    const document = { ...facts, security: security[role], halt: halts[role] };
    const host = bed.start(role, process.execPath, [script, JSON.stringify(document)]);
    hosts.push(host);
    return host;
  };
  try {
    const destination = start('destination', plan.url?.(bed) ?? `tcp://${bed.address}:0`);
    await destination.says('listening', 'end');
    const url = destination.heard('listening') ?? `tcp://${bed.address}:7000`;
    const source = start('source', String(url));
    const leases = () => leasesOf(join(folder, 'lease'));
    return { bed, source, destination, leases, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/** Pages are on their way. */
async function isUnderWay({ source }: Scene): Promise<void> {
  await source.says('progress');
  await sleep(300);
}

/** The guest came to run there, as it stopped here, and no write was lost. Resolves to the report of the source. */
async function expectMoved({ source, destination, leases }: Scene): Promise<SendReport> {
  expect(await source.says('end')).toBe('moved');
  expect(await destination.says('end')).toBe('moved');
  expect(destination.heard('arrived')).toBe(source.heard('stopped'));
  await expectWhole({ source, destination });
  expect(leases()).toEqual({ taken: ['source', 'destination'], violations: [] });
  return source.heard('report') as SendReport;
}

/** The pages that the guest has written are right, and the others are those that it had at the source. */
async function expectWhole({ source, destination }: Pick<Scene, 'source' | 'destination'>): Promise<void> {
  for (const host of [source, destination]) host.tell('check');
  const here = (await source.says('checked')) as Checked;
  const there = (await destination.says('checked')) as Checked;
  expect([here.ran, there.ran]).toEqual([false, true]);
  expect(there.damaged).toBe(0);
  expect(there.stamped).toBeGreaterThan(0);
  expect(there.highestCounter).toBeGreaterThanOrEqual(here.highestCounter);
  expect(there.untouched).toBe(here.untouched);
}

interface Checked {
  readonly ran: boolean;
  readonly stamped: number;
  readonly damaged: number;
  readonly highestCounter: number;
  readonly untouched: string;
}

// Most of their time they wait for a link.
describe.skipIf(bedsMissing !== undefined)('two hosts', { concurrent: true, timeout: 120_000 }, () => {
  for (const streams of [1, 2]) {
    it(`a guest that writes moves at the rate of the link, over connections for pages: ${streams}`, async () => {
      await using scene = await begin({ ...slow, megabits: 100, send: { streams } });
      const { rounds } = await expectMoved(scene);
      const [first] = rounds;
      const rate = (first?.bytes ?? 0) / (first?.ms ?? 1);
      console.log(`100 Mbit/s, ${streams} for pages: ${((rate * 8) / 1000).toFixed(0)} Mbit/s in round 0`);
      // No more than the link has, and it is not idle most of the time.
      expect(rate).toBeLessThan(bytesOf(105));
      expect(rate).toBeGreaterThan(bytesOf(20));
    });
  }

  it.skipIf(!hasOpenssl)('certificates: both hosts know whom they talk to, and the guest moves', async () => {
    const authority = new Authority('chkpt two hosts');
    const [source, destination] = [
      authority.issue('source'),
      authority.issue('destination', { names: 'IP:10.97.0.2' }),
    ];
    const tlsOf = (own: typeof source, far: typeof source) => ({
      tls: { ...own, ca: authority.cert, peer: new X509Certificate(far.cert).fingerprint256 },
    });
    await using scene = await begin({
      ...small,
      url: ({ address }) => `tls://${address}:0`,
      security: { source: tlsOf(source, destination), destination: tlsOf(destination, source) },
    });
    await expectMoved(scene);
  });

  it(`a one-time key${hasIpv6 ? ', IPv6' : ''}: the guest moves`, async () => {
    const psk = { key: randomBytes(32).toString('hex'), uses: 2 };
    await using scene = await begin({
      ...small,
      url: ({ address, address6 }) => (hasIpv6 ? `tcp://[${address6}]:0` : `tcp://${address}:0`),
      security: { source: { psk }, destination: { psk } },
    });
    await expectMoved(scene);
  });

  it('without key and certificates neither end opens anything, and the guest runs on', async () => {
    await using scene = await begin({ ...small, security: { source: {}, destination: {} } });
    const { source, destination } = scene;
    expect(await destination.says('end')).toBe('CHKPT_INSECURE');
    expect(destination.heard('listening')).toBeUndefined();
    expect(await source.says('end')).toBe('CHKPT_INSECURE');
    expect(source.heard('running')).toBe(true);
  });

  it('a link that gets three times slower meanwhile: rounds take what it has, and the guest moves', async () => {
    await using scene = await begin({ ...slow, megabits: 90, send: { downtimeTargetMs: 500 } });
    await isUnderWay(scene);
    scene.bed.setRate(30);
    const { rounds } = await expectMoved(scene);
    for (const { bytes, ms } of rounds.slice(1)) expect(bytes / ms).toBeLessThan(bytesOf(32) + 65_536 / ms);
  });

  it('a cable that is pulled for a second: the guest runs on meanwhile, and moves', async () => {
    await using scene = await begin(slow);
    await isUnderWay(scene);
    scene.bed.isPlugged = false;
    await sleep(1000);
    expect(scene.source.heard('stopped')).toBeUndefined();
    scene.bed.isPlugged = true;
    await expectMoved(scene);
  });

  it('a cable that stays pulled: the guest runs on where it is', async () => {
    await using scene = await begin({ ...slow, megabits: 30, send: { reconnectMs: 1000 } });
    await isUnderWay(scene);
    scene.bed.isPlugged = false;
    expect(await scene.source.says('end')).toMatch(/^CHKPT_(TIMEOUT|LINK_LOST)$/);
    expect(scene.source.heard('running')).toBe(true);
    expect(scene.leases()).toEqual({ taken: ['source'], violations: [] });
  });

  it('connections that are reset are made anew, and the guest moves', async (context) => {
    await using scene = await begin({ ...slow, send: { streams: 2 } });
    await isUnderWay(scene);
    if (scene.bed.reset() === 0) {
      console.log('resets are not tested: ss -K resets nothing here');
      return context.skip();
    }
    const { reconnects } = await expectMoved(scene);
    expect(reconnects).toBeGreaterThanOrEqual(1);
  });

  it('a COMMIT that never arrives: nobody runs the guest until the link is back, then the destination does', async () => {
    await using scene = await begin({ ...small, halts: { source: 'source before send commit' } });
    const { bed, source, destination } = scene;
    await source.says('halted');
    bed.isSwallowing = true;
    source.tell('go');
    expect(await source.says('end')).toBe('CHKPT_IN_DOUBT');
    expect(source.heard('running')).toBe(false);
    expect(destination.heard('arrived')).toBeUndefined();
    bed.isSwallowing = false;
    expect(await source.says('settled')).toBe('moved');
    expect(await destination.says('end')).toBe('moved');
    expect(destination.heard('arrived')).toBe(source.heard('stopped'));
    expect(scene.leases()).toEqual({ taken: ['source', 'destination'], violations: [] });
  });

  it('an answer to COMMIT that never arrives: the guest runs there and not here, which learns of it over a new link', async () => {
    await using scene = await begin({
      ...small,
      halts: { destination: 'destination before send running' },
    });
    const { bed, source, destination } = scene;
    await destination.says('halted');
    bed.isSwallowing = true;
    destination.tell('go');
    expect(await source.says('end')).toBe('CHKPT_IN_DOUBT');
    // Both ends give the link up.
    await sleep(5500);
    expect(source.heard('settled')).toBeUndefined();
    bed.isSwallowing = false;
    expect(await source.says('settled')).toBe('moved');
    expect(source.heard('running')).toBe(false);
    expect(destination.heard('arrived')).toBe(source.heard('stopped'));
    expect(scene.leases()).toEqual({ taken: ['source', 'destination'], violations: [] });
  });

  it.skipIf(!hasUserfault)(
    'post-copy: the guest runs there while its pages come, and all of them do',
    async () => {
      await using scene = await begin({ ...slow, send: { strategy: 'postcopy', precopyRounds: 0 } });
      const { source, destination } = scene;
      expect(await destination.says('missing')).toBeGreaterThan(1000);
      expect(await source.says('end')).toBe('moved');
      expect(await destination.says('end')).toBe('moved');
      expect((source.heard('report') as SendReport).postcopy?.pages).toBeGreaterThan(1000);
      await expectWhole(scene);
      expect(scene.leases()).toEqual({ taken: ['source', 'destination'], violations: [] });
    },
  );

  it.skipIf(!hasUserfault)(
    'post-copy whose destination is killed: the safety checkpoint is the guest as it stopped',
    async () => {
      const shared = await mkdtemp(join(tmpdir(), 'chkpt-safety-'));
      const safety = `file:${shared}/safety.chkpt`;
      try {
        await using scene = await begin({
          ...slow,
          send: { strategy: 'postcopy', precopyRounds: 0, reconnectMs: 500, safety },
        });
        const { source, destination } = scene;
        expect(await destination.says('missing')).toBeGreaterThan(1000);
        await destination.kill();
        expect(await source.says('end')).toBe('CHKPT_IN_DOUBT');
        expect(source.heard('running')).toBe(false);
        await using vm = await SyntheticVm.create({ id: 'guest', memoryBytes: 32 * mebibyte });
        await loadVm(vm, safety, { as: 'continue', force: true });
        expect(await vm.digest()).toBe(source.heard('stopped'));
      } finally {
        await rm(shared, { recursive: true, force: true });
      }
    },
  );
});
