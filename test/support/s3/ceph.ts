/**
 * A Ceph cluster with its S3 gateway, out of Debian's packages, for the time of a test or a bench: a monitor, some stores, a gateway, all on
 * loopback and on ports that were free. Without accounts and encryption between them: nobody else reaches them.
 *
 * Every daemon is a child that dies with this process.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { accessKey, secretKey } from './signature.ts';

const run = promisify(execFile);
const startMs = 120_000;
const stopMs = 10_000;
const programs = ['radosgw', 'radosgw-admin', 'ceph-mon', 'ceph-osd', 'ceph', 'monmaptool', 'setpriv'];

export interface CephOptions {
  /** Stores, which each hold a copy of everything. */
  readonly stores: number;
  /** `memstore`: in memory, at most 2 GiB. */
  readonly kind: 'memstore' | 'bluestore';
}

/** Why this machine cannot have one; `undefined` when it can. */
export function whyNoCeph(): string | undefined {
  const missing = programs.filter((name) => spawnSync('sh', ['-c', `command -v ${name}`]).status !== 0);
  return missing.length === 0
    ? undefined
    : `there is no ${missing.join(', ')} (Debian: radosgw ceph-mon ceph-osd)`;
}

export class CephService {
  readonly endpoint: string;
  readonly #folder: string;
  readonly #daemons = new Map<string, ChildProcess>();
  readonly #config: string;
  readonly #options: CephOptions;

  private constructor(folder: string, options: CephOptions, ports: readonly number[]) {
    this.#folder = folder;
    this.#options = options;
    this.#config = `${folder}/ceph.conf`;
    this.endpoint = `http://127.0.0.1:${ports[2]}`;
  }

  /** Resolves when objects can be written. */
  static async start(options: CephOptions): Promise<CephService> {
    // A short name: it becomes that of sockets.
    const folder = mkdtempSync(`${tmpdir()}/chkpt-ceph-`);
    const ports = await freePorts(3);
    const service = new CephService(folder, options, ports);
    try {
      await service.#start(ports);
      return service;
    } catch (error) {
      const log = service.#logs();
      await service.stop();
      throw new Error(`Ceph did not start:\n${log}`, { cause: error });
    }
  }

  /** Ends a store without a word. */
  kill(store: number): void {
    this.#daemons.get(`osd.${store}`)?.kill('SIGKILL');
  }

  /** Starts one that was killed again. */
  revive(store: number): void {
    this.#spawn(`osd.${store}`, 'ceph-osd', ['-i', `${store}`]);
  }

  /** How many stores the monitor believes to be up. */
  async storesUp(): Promise<number> {
    const { stdout } = await this.#ceph('osd', 'stat', '--format', 'json');
    return (JSON.parse(stdout) as { num_up_osds: number }).num_up_osds;
  }

  async stop(): Promise<void> {
    // The gateway first: it would wait for the others.
    const names = [...this.#daemons.keys()].sort(
      (left, right) => Number(right === 'rgw') - Number(left === 'rgw'),
    );
    for (const name of names) await ended(this.#daemons.get(name) as ChildProcess);
    this.#daemons.clear();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #start([first, second, gateway]: readonly number[]): Promise<void> {
    const cluster = randomUUID();
    for (const name of ['mon', 'rgw', 'run', 'log']) mkdirSync(`${this.#folder}/${name}`);
    const address = `[v2:127.0.0.1:${first},v1:127.0.0.1:${second}]`;
    const config = configOf(this.#folder, { cluster, address, gateway: gateway ?? 0 }, this.#options);
    writeFileSync(this.#config, config);
    const map = `${this.#folder}/monmap`;
    await run('monmaptool', ['--create', '--fsid', cluster, '--addv', 'a', address, map]);
    await run('ceph-mon', ['-c', this.#config, '-i', 'a', '--mkfs', '--monmap', map]);
    this.#spawn('mon', 'ceph-mon', ['-i', 'a']);
    for (let index = 0; index < this.#options.stores; index += 1) await this.#makeStore(index);
    await until(async () => (await this.storesUp()) === this.#options.stores);
    const account = [
      '--uid',
      'test',
      '--display-name',
      'test',
      '--access-key',
      accessKey,
      '--secret-key',
      secretKey,
    ];
    const admin = ['-c', this.#config, '-n', 'client.rgw', 'user', 'create', ...account];
    await run('radosgw-admin', admin, { timeout: startMs });
    this.#spawn('rgw', 'radosgw', ['-n', 'client.rgw']);
    await until(async () => (await fetch(this.endpoint)).status > 0);
  }

  async #makeStore(index: number): Promise<void> {
    const uuid = randomUUID();
    await until(async () => (await this.#ceph('osd', 'new', uuid)).stdout.trim() === `${index}`);
    mkdirSync(`${this.#folder}/osd${index}`);
    await run('ceph-osd', ['-c', this.#config, '-i', `${index}`, '--mkfs', '--osd-uuid', uuid]);
    this.revive(index);
  }

  #spawn(name: string, program: string, args: readonly string[]): void {
    const output = openSync(`${this.#folder}/log/${name}.out`, 'a');
    const words = ['--pdeathsig', 'KILL', program, '-f', '-c', this.#config, ...args];
    this.#daemons.set(name, spawn('setpriv', words, { stdio: ['ignore', output, output] }));
  }

  async #ceph(...words: string[]): Promise<{ stdout: string }> {
    return await run('ceph', ['-c', this.#config, '--connect-timeout', '10', ...words]);
  }

  #logs(): string {
    return ['mon', 'osd.0', 'rgw']
      .map((name) => {
        try {
          return `${name}: ${readFileSync(`${this.#folder}/log/${name}.out`, 'utf8').slice(-2000)}`;
        } catch {
          return `${name}: not started`;
        }
      })
      .join('\n');
  }
}

interface Addresses {
  readonly cluster: string;
  /** Of the monitor. */
  readonly address: string;
  readonly gateway: number;
}

function configOf(
  folder: string,
  { cluster, address, gateway }: Addresses,
  { stores, kind }: CephOptions,
): string {
  const everyone = {
    fsid: cluster,
    'mon host': address,
    'public addr': '127.0.0.1',
    'cluster addr': '127.0.0.1',
    'auth cluster required': 'none',
    'auth service required': 'none',
    'auth client required': 'none',
    'osd pool default size': stores,
    'osd pool default min size': Math.max(1, stores - 1),
    'osd pool default pg num': 8,
    'osd pool default pgp num': 8,
    'osd pool default pg autoscale mode': 'off',
    'osd crush chooseleaf type': 0,
    'mon allow pool size one': true,
    'mon warn on pool no redundancy': false,
    'mon max pg per osd': 1000,
    'run dir': `${folder}/run`,
    'log file': `${folder}/log/$name.log`,
    'admin socket': `${folder}/run/$name.asok`,
    'pid file': `${folder}/run/$name.pid`,
    'mon data': `${folder}/mon`,
    'osd data': `${folder}/osd$id`,
    'osd objectstore': kind,
    'memstore device bytes': 2 * 1024 ** 3,
    'bluestore block size': 8 * 1024 ** 3,
    'bluestore cache autotune': false,
    'bluestore cache size': 64 * 1024 ** 2,
  };
  const ofGateway = {
    'rgw data': `${folder}/rgw`,
    'rgw frontends': `beast endpoint=127.0.0.1:${gateway}`,
    'rgw dns name': 'localhost',
    'rgw thread pool size': 32,
    // What is removed is gone at once, or memory would soon be full of it.
    'rgw gc obj min wait': 1,
    'rgw gc processor period': 2,
    'rgw gc processor max time': 10,
    // Without accounts there are no keys for the secure mode that it asks for.
    'ms mon client mode': 'crc',
    'ms mon service mode': 'crc',
  };
  const section = (name: string, values: object): string =>
    `[${name}]\n${Object.entries(values)
      .map(([key, value]) => `${key} = ${value}`)
      .join('\n')}\n`;
  return section('global', everyone) + section('client.rgw', ofGateway);
}

/** Ports that nobody has at this moment. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => new Promise((resolve) => server.once('listening', resolve))));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

async function until(isTrue: () => Promise<boolean>): Promise<void> {
  const endMs = Date.now() + startMs;
  for (;;) {
    const [result] = await Promise.allSettled([isTrue()]);
    if (result.status === 'fulfilled' && result.value) return;
    if (Date.now() > endMs)
      throw new Error('too long', { cause: result.status === 'rejected' ? result.reason : undefined });
    await delay(200);
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), stopMs);
  await exit;
  clearTimeout(timer);
}
